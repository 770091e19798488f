"""Controllers that follow each other, or have copies of one state folder, on a node behind an agent."""

import asyncio
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import succession
from jigsaw_triton.controller.fleet.succession import ReplacedError
from jigsaw_triton.errors import StateError
from tests.fakes.node import CLUSTER, model, worker
from tests.fakes.remote_node import Remote, W, run
from tests.waiting import until

COMMANDED = {"deployment": "d", "commanded_s": 0.0}
"""Answer of an agent that a controller commands."""

FENCE = {"fence": "7.b", "machine": "other"}


def test_the_next_controller_goes_on_and_ends_the_one_before(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        one = worker(W, model("m"))
        await remote.node.bring_up(one)
        await remote.node.bring_up(worker("a-0-1g-1", start=1))
        successor = remote.controller("2.a")
        try:
            await successor.adopt(CLUSTER, {W: one})
            assert set(successor.running) == {W} and set(remote.machine.node.workers) == {W}
            with pytest.raises(StateError, match=r"the controller's epoch, 1\.a, is over"):
                await remote.node.bring_up(worker("a-0-1g-2", start=2))
        finally:
            await successor.stop()

    run(run_dir, test)


def test_what_an_earlier_controller_was_bringing_up_ends_when_the_next_one_adopts(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
        await until(lambda: len(remote.machine.published) == 1)
        successor = remote.controller("2.a")
        adopting = asyncio.create_task(successor.adopt(CLUSTER, {}))
        try:
            with pytest.raises(StateError):
                await starting
            remote.machine.node.gate.set()
            await adopting
            assert f"bring up {W}" not in remote.machine.node.log and successor.running == {}
        finally:
            await successor.stop()

    run(run_dir, test)


@pytest.mark.parametrize("epoch", ["1.b", "0.b"])
def test_of_two_controllers_with_copies_of_one_state_folder_the_one_that_runs_is_obeyed(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        monkeypatch.setattr(succession, "COMMANDED_S", 0.1)
        # The agent reports the other controller as running, however slow this machine is.
        monkeypatch.setattr(remote.machine.agent.commander, "to_json", lambda: {**COMMANDED, "epoch": "1.a"})
        copy = remote.controller(epoch)
        try:
            with pytest.raises(StateError, match=r"commands the node in epoch 1\.a"):
                await copy.serve_on(CLUSTER)
        finally:
            await copy.stop()
        await remote.node.bring_up(worker(W))

    run(run_dir, test)


@pytest.mark.slow
def test_a_controller_with_an_old_copy_of_the_state_folder_follows_one_that_has_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker(W, model("m"))

    async def test(remote: Remote) -> None:
        await remote.node.stop()
        last = remote.controller("7.a")
        await last.adopt(CLUSTER, {})
        await last.bring_up(one)
        await last.stop()
        monkeypatch.setattr(succession, "COMMANDED_S", 0.5)
        old = remote.controller("3.b")
        try:
            await old.adopt(CLUSTER, {W: one})
            assert not old.away and set(old.running) == {W}
            with pytest.raises(StateError, match=r"epoch, 7\.a, is over: another one has begun epoch 8\."):
                await last.bring_up(worker("a-0-1g-1", start=1))
        finally:
            await old.stop()
            await last.stop()

    run(run_dir, test)


@pytest.mark.slow
def test_a_controller_goes_on_when_another_one_with_a_copy_of_its_state_folder_has_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        copy = remote.controller("7.b")
        await copy.adopt(CLUSTER, {})
        await until(lambda: remote.said("is over: another one has begun epoch 7.b"))
        await copy.stop()
        monkeypatch.setattr(succession, "COMMANDED_S", 0.5)
        await until(
            lambda: remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"] != "7.b"
        )
        await remote.node.bring_up(worker(W))
        assert remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"].startswith("8.")

    run(run_dir, test)


def test_a_controller_that_was_replaced_from_another_machine_gives_way(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        successor = remote.controller("7.b", "d", "7.b")
        try:
            await successor.adopt(CLUSTER, {})
            await successor.calls.post("/fence", FENCE)
            await until(lambda: bool(remote.gave_way))
            assert "node a: the controller on other has replaced this one since 20" in remote.gave_way[0]
            # A higher epoch does not make the replaced controller valid: each start of a cut-off controller begins one.
            adopting, deploying = remote.controller("9.a"), remote.controller("10.a")
            with pytest.raises(ReplacedError, match="the controller on other has replaced this one"):
                await adopting.adopt(CLUSTER, {})
            with pytest.raises(ReplacedError):
                await deploying.serve_on(CLUSTER)
            await adopting.stop()
            await deploying.stop()
            assert remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"] == "7.b"
            await successor.bring_up(worker(W))
        finally:
            await successor.stop()

    run(run_dir, test)


def test_a_controller_that_was_replaced_goes_on_if_it_is_started_again_after_the_end_of_the_other(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        successor = remote.controller("7.b", "d", "7.b")
        await successor.adopt(CLUSTER, {})
        await successor.calls.post("/fence", FENCE)
        await successor.stop()
        # A replaced controller that still runs gives way even now, because its state is outdated.
        monkeypatch.setattr(succession, "REPLACED_S", 0.1)
        await until(lambda: bool(remote.gave_way))
        monkeypatch.setattr(succession, "COMMANDED_S", 0.1)
        await until(
            lambda: remote.machine.agent is not None and remote.machine.agent.commander.to_json()["commanded_s"] > 0.1
        )
        again = remote.controller("2.a")
        try:
            await again.adopt(CLUSTER, {})
            assert not again.away and remote.machine.agent.commander.to_json()["epoch"].startswith("8.")
        finally:
            await again.stop()

    run(run_dir, test)


def test_a_controller_that_was_cut_off_and_started_again_commands_nothing_when_the_node_is_back(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        await remote.node.stop()
        await remote.machine.cut()
        cut_off = remote.controller("9.a")
        await cut_off.adopt(CLUSTER, {})
        assert cut_off.away
        remote.machine.agent.admit("d", "7.b")
        await remote.machine.agent.set_fence("7.b", "other")
        await remote.machine.reach()
        await until(lambda: bool(remote.gave_way))
        assert remote.machine.agent.commander.to_json()["epoch"] == "7.b"
        await cut_off.stop()

    run(run_dir, test)


def test_the_fence_of_another_deployment_says_nothing(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.calls.post("/fence", {"fence": "1.a", "machine": "here"})
        await remote.node.stop()
        other = remote.controller("1.c", "another")
        try:
            await other.serve_on(CLUSTER)
            await other.bring_up(worker(W))
        finally:
            await other.stop()

    run(run_dir, test)
