"""The workers of a node across restarts of its agent, and its answers to controllers that do not own them."""

import asyncio
from pathlib import Path

import pytest

from jigsaw_triton.agent import node_agent
from jigsaw_triton.errors import StateError
from tests.fakes.node import CLUSTER, model, worker
from tests.fakes.remote_node import Remote, W, run
from tests.waiting import until


def test_an_agent_leaves_the_workers_of_a_release_with_other_messages_alone(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        with monkeypatch.context() as other:
            other.setattr(node_agent, "WIRE_VERSION", 2)
            with pytest.raises(StateError, match="messages of version 1 has started 1 workers here") as caught:
                await remote.machine.start()
            assert "jigsaw-triton down --state DIR" in caught.value.hint
            await remote.machine.stop()
        await remote.machine.start()
        assert f"adopt {W}" in remote.machine.node.log

    run(run_dir, test)


def test_an_agent_without_workers_goes_on_from_a_release_with_other_messages(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        await remote.machine.stop()
        monkeypatch.setattr(node_agent, "WIRE_VERSION", 2)
        await remote.machine.start()

    run(run_dir, test)


def test_the_next_agent_knows_the_workers_of_the_one_before(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        await remote.machine.start()
        assert f"adopt {W}" in remote.machine.node.log
        await until(lambda: f"reconcile {W} m" in remote.machine.node.log)
        assert not remote.said("WorkerExited")

    run(run_dir, test)


def test_a_worker_that_ended_while_no_agent_ran_is_restarted(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        remote.machine.node.vanish(W)
        await remote.machine.start()
        await until(lambda: remote.said("WorkerExited"))
        await until(lambda: W not in remote.node.running)
        await remote.node.restart(worker(W, model("m")), 0.0)
        assert W in remote.node.running

    run(run_dir, test)


def test_a_node_with_workers_of_another_deployment_refuses(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        other = remote.controller("1.a", "another")
        try:
            with pytest.raises(StateError, match="serves another deployment with 1 workers"):
                await other.serve_on(CLUSTER)
            await remote.node.retire(W)
            await other.serve_on(CLUSTER)
        finally:
            await other.stop()

    run(run_dir, test)


def test_a_node_on_which_another_deployment_starts_its_first_worker_refuses(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W)))
        await until(lambda: len(remote.machine.published) == 1)
        other = remote.controller("1.a", "another")
        try:
            with pytest.raises(StateError, match="serves another deployment with 1 workers"):
                await other.serve_on(CLUSTER)
        finally:
            await other.stop()
        remote.machine.node.gate.set()
        await starting

    run(run_dir, test)


def test_a_worker_that_was_to_end_as_the_agent_died_is_ended_by_the_next_one(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        remote.machine.node.gate.clear()
        retiring = asyncio.create_task(remote.node.retire(W))
        await until(lambda: f"retire {W}" in remote.machine.node.begun)
        await remote.machine.stop()
        remote.machine.node.gate.set()
        await remote.machine.start()
        await retiring
        await until(lambda: remote.machine.node.workers == {})
        assert remote.node.workers == {}

    run(run_dir, test)


def test_the_process_after_a_condemned_one_is_left_alone(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        await remote.node.kill(W, "it hung", "another incarnation")
        # The order may arrive late, or a second time after its agent was restarted.
        monkeypatch.setattr(node_agent, "start_time", lambda _: 7)
        await remote.node._orders.operate("kill", {"name": W, "cause": "late", "incarnation": "1.1"})
        assert not any(text.startswith("kill") for text in remote.machine.node.log)

    run(run_dir, test)
