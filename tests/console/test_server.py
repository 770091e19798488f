"""The status API over its socket, with the command line's own client."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.console.server import StatusServer
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.generation import Canary, ChangeRequest, Generation
from jigsaw_triton.controller.core.load_sample import LoadSample
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.errors import Diagnostic, InputError, JigsawError, SpecError, StateError
from jigsaw_triton.gpus.model import DeviceUse
from jigsaw_triton.profiles import table
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.servers.metrics import parse_metrics
from tests.console.conftest import Desk
from tests.controller.core.test_canary_change import BESIDE
from tests.controller.core.test_step import ONE
from tests.controller.disks import fill_disk, free_disk
from tests.controller.worlds import generation, wanted
from tests.fakes.live import PATIENCE_S
from tests.fakes.problems import row

Read = Callable[[Mapping[str, Any], Generation | None], ChangeRequest]


def always(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
    return ChangeRequest(wanted())


@asynccontextmanager
async def listening(desk: Desk, read: Read = always) -> AsyncIterator[ControllerClient]:
    server = StatusServer(desk.paths.control_socket, desk.controller, desk.fleet, desk.journal, read)
    await server.start()
    controller = asyncio.create_task(desk.controller.run())
    try:
        yield ControllerClient(desk.paths.control_socket)
    finally:
        desk.controller.down()
        await controller
        await server.stop()


def asked(desk: Desk, ask: Callable[[ControllerClient], Awaitable[None]], read: Read = always) -> None:
    async def run() -> None:
        async with listening(desk, read) as client:
            await ask(client)

    asyncio.run(run())


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


def test_a_deploy_starts_and_a_second_one_is_refused(desk: Desk) -> None:
    seen: list[Mapping[str, Any]] = []

    def read(request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        seen.append(request)
        return ChangeRequest(wanted(25.0))

    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.deploy, {"graphs": ["/app"]})
        assert seen == [{"graphs": ["/app"]}]
        assert desk.controller.state.phase is Phase.SOLVING
        with pytest.raises(StateError, match="another deploy is under way") as caught:
            await asyncio.to_thread(client.deploy, {"graphs": ["/app"]})
        assert "--wait ready" in caught.value.hint
        assert len(seen) == 1

    asked(desk, ask, read)


def test_profiles_are_encoded_outside_the_event_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, loop, encoding = table._cells, threading.current_thread(), list[threading.Thread]()

    def encoded(profile: ProfileRow) -> tuple[object, ...]:
        encoding.append(threading.current_thread())
        return cells(profile)

    monkeypatch.setattr(table, "_cells", encoded)

    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        return ChangeRequest(replace(wanted(), profiles={"app": ProfileTable([row("t0", "a"), row("t1", "a")])}))

    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.deploy, {})
        assert len(encoding) == 2 and loop not in encoding

    asked(desk, ask, read)


def test_two_changes_of_what_serves_are_not_read_at_the_same_time(desk: Desk) -> None:
    reading: list[int] = []

    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        assert not reading
        reading.append(1)
        time.sleep(0.1)
        reading.clear()
        return ChangeRequest(wanted(25.0))

    async def ask(client: ControllerClient) -> None:
        calls = (asyncio.to_thread(client.deploy, {}) for _ in range(2))
        refused = [error for error in await asyncio.gather(*calls, return_exceptions=True) if error is not None]
        assert [str(error).partition(";")[0] for error in refused] == ["another deploy is under way"]

    asked(desk, ask, read)


def test_a_request_is_read_again_if_the_load_has_changed_what_serves_meanwhile(desk: Desk) -> None:
    first, second = (generation(replace(ONE, generation=n)) for n in (1, 2))
    desk.controller.state = replace(desk.controller.state, phase=Phase.READY, running=first, wanted=first.wanted)
    bases: list[Generation | None] = []

    def read(_request: Mapping[str, Any], running: Generation | None) -> ChangeRequest:
        bases.append(running)
        desk.controller.state = replace(desk.controller.state, running=second)
        return ChangeRequest(wanted(25.0 if running is second else 15.0))

    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.deploy, {})
        assert bases == [first, second]
        assert desk.controller.state.asked == ChangeRequest(wanted(25.0))

    asked(desk, ask, read)


def test_a_rollback_does_not_overtake_a_deploy_that_is_being_read(desk: Desk) -> None:
    served_twice(desk)
    refused: list[StateError] = []

    def roll_back() -> None:
        try:
            ControllerClient(desk.paths.control_socket).rollback(1)
        except StateError as error:
            refused.append(error)

    rollback = threading.Thread(target=roll_back)

    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        rollback.start()
        rollback.join(0.3)
        return ChangeRequest(wanted(25.0))

    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.deploy, {})
        await asyncio.to_thread(rollback.join)
        assert [error.message for error in refused] == ["another deploy is under way"]
        assert desk.controller.state.asked == ChangeRequest(wanted(25.0))

    asked(desk, ask, read)


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


def test_a_pause_is_shown_by_the_status(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.pause, True)
        assert (await asyncio.to_thread(client.status))["paused"]
        await asyncio.to_thread(client.pause, False)
        assert not (await asyncio.to_thread(client.status))["paused"]

    asked(desk, ask)


def served_twice(desk: Desk) -> tuple[Generation, Generation]:
    """Has the controller serve a second generation; returns both."""
    first, second = (generation(replace(ONE, generation=n), 10.0 * n) for n in (1, 2))
    for made in (first, second):
        keep(desk.journal, made, "requested by the user", by_load=False)
    desk.journal.conclude(1, "replaced")
    desk.controller.state = replace(
        desk.controller.state, phase=Phase.READY, running=second, wanted=second.wanted, next_generation=3
    )
    return first, second


def test_a_rollback_goes_to_the_generation_that_served_before(desk: Desk) -> None:
    first, _ = served_twice(desk)

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(StateError, match="generation 7 is unknown"):
            await asyncio.to_thread(client.rollback, 7)
        await asyncio.to_thread(client.rollback, None)
        asked_for = desk.controller.state.asked
        assert asked_for is not None
        assert asked_for.restored == first
        with pytest.raises(StateError, match="another deploy is under way"):
            await asyncio.to_thread(client.rollback, 1)

    asked(desk, ask)


def test_a_rollback_without_a_generation_ends_the_canary_in_progress(desk: Desk) -> None:
    running, new = generation(ONE), generation(BESIDE)
    desk.controller.state = replace(
        desk.controller.state,
        phase=Phase.CHANGING,
        running=running,
        pending=new,
        wanted=running.wanted,
        stage=Stage("answer 5% of the requests with the new generation", (), watches=True),
        watch=Watch.of(Canary(0.05, 60.0), running, new).begun(0.0),
    )

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(StateError, match="generation 7 is unknown"):
            await asyncio.to_thread(client.rollback, 7)
        assert (await asyncio.to_thread(client.status))["canary"]["verdict"] is None
        assert await asyncio.to_thread(client.rollback, None)
        assert (await asyncio.to_thread(client.status))["canary"]["verdict"] == "rolled back: requested by the user"
        assert desk.controller.state.rolling_back

    asked(desk, ask)


def test_without_a_generation_that_serves_there_is_no_rollback(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        with pytest.raises(StateError, match="nothing serves yet"):
            await asyncio.to_thread(client.rollback, None)

    asked(desk, ask)


def test_down_stops_the_deployment(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.down)
        while desk.controller.state.phase is not Phase.STOPPED:
            await desk.controller.wait_changed(1.0)
        with pytest.raises(StateError, match="being taken down") as caught:
            await asyncio.to_thread(client.deploy, {})
        assert "--wait stopped" in caught.value.hint

    asked(desk, ask)


def test_the_removal_of_all_graphs_stops_the_deployment(desk: Desk) -> None:
    running = generation(ONE)
    desk.controller.state = replace(desk.controller.state, phase=Phase.READY, running=running, wanted=running.wanted)

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(StateError, match="graphs have joined or left the deployment meanwhile") as caught:
            await asyncio.to_thread(client.remove_all, ["other"])
        assert "jigsaw-triton status" in caught.value.hint
        await asyncio.to_thread(client.remove_all, ["app"])
        assert desk.controller.state.phase in (Phase.STOPPING, Phase.STOPPED)

    asked(desk, ask)


def test_the_removal_of_all_graphs_is_refused_while_others_may_be_joining(desk: Desk) -> None:
    running = generation(ONE)
    desk.controller.state = replace(desk.controller.state, phase=Phase.READY, running=running, wanted=running.wanted)

    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.deploy, {})
        with pytest.raises(StateError, match="another deploy is under way"):
            await asyncio.to_thread(client.remove_all, ["app"])
        assert desk.controller.state.phase is Phase.SOLVING

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
        # It may have waited for the state before the deploy.
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
        async with asyncio.timeout(PATIENCE_S):
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
