"""The status API over its socket, with the command line's own client: status, view, events, metrics and errors."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation
from jigsaw_triton.controller.core.load_sample import LoadSample
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.errors import Diagnostic, InputError, JigsawError, SpecError, StateError
from jigsaw_triton.gpus.model import DeviceUse
from jigsaw_triton.servers.metrics import parse_metrics
from tests.console.conftest import Desk
from tests.console.listening import asked
from tests.controller.disks import fill_disk, free_disk
from tests.waiting import WAIT_LIMIT_S


def test_only_the_owner_can_open_the_socket_and_it_is_removed_at_the_end(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        assert desk.paths.control_socket.stat().st_mode & 0o077 == 0
        status = await asyncio.to_thread(client.status)
        assert status["state"] == "idle"

    asked(desk, ask)
    assert not desk.paths.control_socket.exists()


def test_metrics_say_that_the_journal_is_incomplete(desk: Desk) -> None:
    def scrape() -> dict[str, float]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(desk.paths.control_socket))
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            head, _, text = b"".join(iter(lambda: connection.recv(4096), b"")).decode().partition("\r\n\r\n")
        assert "Content-Type: text/plain; version=0.0.4" in head
        return {sample.name: sample.value for sample in parse_metrics(text)}

    async def ask(_: ControllerClient) -> None:
        found = await asyncio.to_thread(scrape)
        assert found["jigsaw_controller_journal_incomplete"] == 0
        fill_disk(desk.journal)
        found = await asyncio.to_thread(scrape)
        assert found["jigsaw_controller_journal_incomplete"] == found["jigsaw_controller_degraded"] == 1
        assert found["jigsaw_controller_serving"] == 0
        free_disk(desk.journal)

    asked(desk, ask)


def test_the_socket_of_a_dead_controller_is_replaced(desk: Desk) -> None:
    desk.paths.control_socket.touch()

    async def ask(client: ControllerClient) -> None:
        assert (await asyncio.to_thread(client.status))["state"] == "idle"

    asked(desk, ask)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (SpecError([Diagnostic("graph.yaml", 7, "there is no task 'x'", "did you mean 'y'?")]), InputError, 2),
        (StateError("not now", where="here", hint="later"), StateError, 4),
        (JigsawError("no", where="there"), JigsawError, 1),
        (ValueError("of different releases"), InputError, 2),
    ],
)
def test_the_client_raises_the_errors_of_its_request(
    desk: Desk, error: Exception, kind: type[JigsawError], code: int
) -> None:
    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        raise error

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(kind) as caught:
            await asyncio.to_thread(client.deploy, {})
        assert str(caught.value) == str(error)
        assert caught.value.exit_code == code
        assert desk.controller.state.phase is Phase.IDLE

    asked(desk, ask, read)


def test_an_internal_error_names_the_call_and_the_log(desk: Desk) -> None:
    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        raise AttributeError("no such thing")

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(JigsawError, match="/deploy failed: AttributeError: no such thing") as caught:
            await asyncio.to_thread(client.deploy, {})
        assert caught.value.exit_code == 1
        assert "logs controller" in caught.value.hint
        assert (await asyncio.to_thread(client.status))["state"] == "idle"

    asked(desk, ask, read)


def test_a_call_waits_for_the_next_event(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        desk.journal.event("plan", "first")
        known = await asyncio.to_thread(client.events)
        assert [(event["kind"], event["text"], event["code"]) for event in known["events"]] == [("plan", "first", 0)]
        waiting = asyncio.create_task(asyncio.to_thread(client.events, known["events"][-1]["id"], wait_s=30.0))
        desk.controller.down()
        answer = await waiting
        assert next(event["kind"] for event in answer["events"]) == "down"
        assert answer["state"] in ("stopping", "stopped")
        assert (answer["queued"], answer["error"], answer["error_code"]) == (False, "", 0)

    asked(desk, ask)


def test_waiting_for_events_has_a_timeout(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        assert (await asyncio.to_thread(client.events, wait_s=0.01))["events"] == []

    asked(desk, ask)


def test_the_view_is_sent_when_it_has_changed(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        def view(version: str, event: int | None = None, wait_s: float = 0.0) -> dict[str, Any]:
            return client.view(version, event, 0.0, wait_s)

        desk.journal.event("plan", "before the page")
        first = await asyncio.to_thread(view, "")
        assert first["view"]["deployment"]["state"] == "idle"
        assert (first["events"], first["event"]) == ([], 1)
        assert "view" not in await asyncio.to_thread(view, first["version"])
        waiting = asyncio.create_task(asyncio.to_thread(view, first["version"], first["event"], 30.0))
        await asyncio.to_thread(client.deploy, {"graphs": ["/app"]})
        answer = await waiting
        # The first answer may describe the state from before the deploy.
        while "view" not in answer:
            answer = await asyncio.to_thread(view, first["version"], first["event"], 30.0)
        assert answer["view"]["deployment"]["state"] == "solving"
        assert answer["version"] != first["version"]
        assert all(event["id"] > 1 for event in answer["events"])

    asked(desk, ask)


def test_a_standby_gateway_that_changes_is_a_new_view(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    standby = {"node": "b", "state": "ready", "in_line": True, "since": 7.0, "failure": ""}
    monkeypatch.setattr(desk.fleet.replication, "status", lambda: standby)

    async def ask(client: ControllerClient) -> None:
        first = await asyncio.to_thread(client.view, "", None, 0.0, 0.0)
        assert "view" not in await asyncio.to_thread(client.view, first["version"], None, 0.0, 0.0)
        standby.update(in_line=False, since=8.0)
        second = await asyncio.to_thread(client.view, first["version"], None, 0.0, 0.0)
        assert second["view"]["standby_gateway"]["in_line"] is False

    asked(desk, ask)


def test_a_node_that_does_not_answer_does_not_delay_the_view(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> Mapping[str, DeviceUse]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(desk.fleet, "use", hang)

    async def ask(client: ControllerClient) -> None:
        async with asyncio.timeout(WAIT_LIMIT_S):
            answer = await asyncio.to_thread(client.view, "", None, 0.0, 0.0)
        assert answer["view"]["deployment"]["state"] == "idle"

    asked(desk, ask)


def test_the_view_has_the_samples_that_the_caller_lacks(desk: Desk) -> None:
    desk.controller.load.add(LoadSample(5.0, 1, {}))
    desk.controller.load.add(LoadSample(6.0, 2, {}))

    async def ask(client: ControllerClient) -> None:
        answer = await asyncio.to_thread(client.view, "", None, 5.0, 0.0)
        assert answer["samples"] == [{"t": 6.0, "slices": 2, "graphs": {}}]

    asked(desk, ask)
