"""Changes of a deployment that are asked for over the controller's socket."""

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.generation import Canary, ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.profiles import table
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.console.conftest import Desk
from tests.console.listening import asked
from tests.controller.core.test_canary_change import BESIDE
from tests.controller.worlds import GRAPH, ONE, generation, wanted
from tests.fakes.problems import row


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


def with_sample(sample: Path) -> Wanted:
    """Returns the input of a deployment whose graph has a file."""
    return replace(wanted(), graphs={"app": replace(GRAPH, samples={"X": sample})})


def test_a_deploy_keeps_copies_of_its_files(desk: Desk, tmp_path: Path) -> None:
    sample = tmp_path / "sample.npy"

    def read(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
        return ChangeRequest(with_sample(sample))

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(InputError, match=r"sample\.npy: the file or folder cannot be read"):
            await asyncio.to_thread(client.deploy, {})
        assert desk.controller.state.phase is Phase.IDLE
        sample.write_bytes(b"tensor")
        await asyncio.to_thread(client.deploy, {})
        accepted = desk.controller.state.wanted
        assert accepted is not None
        copy = desk.paths.contents / accepted.graphs["app"].samples["X"]
        assert copy.read_bytes() == b"tensor"
        files = (await asyncio.to_thread(client.status))["model_files"]
        assert files == {"folder": str(desk.paths.contents), "bytes": 6}

    asked(desk, ask, read)


def test_a_rollback_to_files_that_are_no_longer_kept_is_refused(desk: Desk) -> None:
    made = replace(generation(ONE), wanted=with_sample(Path("f" * 64)))
    served_twice(desk)
    keep(desk.journal, made, "requested by the user", by_load=False)
    desk.journal.conclude(1, "replaced")

    async def ask(client: ControllerClient) -> None:
        with pytest.raises(StateError, match="the model files of generation 1 are no longer kept; deploy its files"):
            await asyncio.to_thread(client.rollback, 1)

    asked(desk, ask)


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


def test_a_pause_is_shown_by_the_status(desk: Desk) -> None:
    async def ask(client: ControllerClient) -> None:
        await asyncio.to_thread(client.pause, True)
        assert (await asyncio.to_thread(client.status))["paused"]
        await asyncio.to_thread(client.pause, False)
        assert not (await asyncio.to_thread(client.status))["paused"]

    asked(desk, ask)


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


@pytest.mark.slow
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
