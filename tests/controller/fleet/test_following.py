"""A node that does not answer, and one that is reconciled after its absence."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from jigsaw_triton.controller.fleet import following
from jigsaw_triton.controller.fleet.agent_calls import AwayError
from tests.fakes import node as fakes
from tests.fakes.node import CLUSTER, GPU, model, worker
from tests.fakes.remote_node import Remote, W, run
from tests.waiting import until


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_lost_with_its_gpus_and_is_reconciled_when_back(run_dir: Path) -> None:
    other = "a-0-1g-1"

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.node.bring_up(worker(other, model("m"), start=1))
        assert await remote.node.lost_gpus() == frozenset()
        await remote.machine.cut()
        # A plan that is being made for several nodes goes on without this one.
        await remote.node.serve_on(CLUSTER)
        assert remote.node.away
        assert remote.said("node a is lost") and remote.node.running == {}
        assert await remote.node.lost_gpus() == {GPU}
        assert (await remote.node.survey(CLUSTER)).gpus == ()
        with pytest.raises(AwayError):
            await remote.node.bring_up(worker("a-0-1g-2", model("m"), start=2))
        await remote.node.retire(other)
        await remote.node.unload(W, ["m"])
        remote.machine.node.log.clear()
        await remote.machine.reach()
        await until(lambda: not remote.node.away)
        assert remote.machine.node.log == ["serve-on", f"retire {other}", f"reconcile {W} "]
        assert remote.said("node a is back") and set(remote.node.running) == {W}
        assert await remote.node.lost_gpus() == frozenset()

    run(run_dir, test)


@pytest.mark.slow
def test_a_node_whose_workers_can_be_called_is_not_lost_with_its_agent(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        starting = asyncio.create_task(remote.node.load(W, [model("n")]))
        await asyncio.sleep(1.5)
        assert not remote.node.away and set(remote.node.running) == {W}
        await remote.machine.start()
        await starting
        assert f"load {W} n" in remote.machine.node.log
        remote.reachable = False
        await remote.machine.cut()
        await until(lambda: remote.node.away)

    run(run_dir, test)


@pytest.mark.slow
def test_an_agent_that_is_away_is_told_from_a_node_that_is_lost(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.machine.cut()
        await until(lambda: remote.node.headless)
        assert not remote.node.away
        await remote.machine.reach()
        await until(lambda: not remote.node.headless)
        assert remote.said("the agent of node a does not answer") and remote.said("agent of node a answers again")
        assert not remote.said("is lost")
        remote.reachable = False
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        assert not remote.node.headless

    run(run_dir, test)


def test_an_agent_that_comes_back_with_another_release_is_known_by_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.node.described is not None and remote.node.described["tritonserver"] == "24.10"
        await remote.machine.stop()
        monkeypatch.setattr(
            fakes, "INSTALLATION", SimpleNamespace(version="25.08", backends=frozenset({"onnxruntime"}))
        )
        await remote.machine.start()
        await until(lambda: remote.said("node a now has"))
        assert remote.node.described["backends"] == ["onnxruntime"]
        assert remote.said("tritonserver 25.08; it had") and remote.said("tritonserver 24.10")

    run(run_dir, test)


@pytest.mark.slow
def test_a_worker_that_ended_while_the_node_was_away_is_restarted(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        remote.machine.node.die(W)
        await remote.machine.reach()
        await until(lambda: remote.said("WorkerExited"))
        await remote.node.restart(worker(W, model("m")), 0.0)
        assert W in remote.node.running

    run(run_dir, test)


@pytest.mark.slow
def test_workers_that_ran_through_an_absence_are_linked_again(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away and remote.linked == set())
        await remote.machine.reach()
        await until(lambda: remote.linked == {W})

    run(run_dir, test)


@pytest.mark.slow
def test_a_worker_that_is_retired_while_the_node_is_reconciled_ends(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        remote.machine.node.gate.clear()
        await remote.machine.reach()
        assert remote.machine.agent is not None
        line = remote.machine.agent.line
        await until(lambda: remote.machine.agent is not None and remote.machine.agent.line != line)
        await remote.node.retire(W)
        remote.machine.node.gate.set()
        await until(lambda: not remote.node.away)
        assert remote.machine.node.workers == {} and remote.node.running == {}

    run(run_dir, test)


def test_an_agent_that_is_being_restarted_leaves_its_gpus_in_the_cluster(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.machine.stop()
        surveying = asyncio.create_task(remote.node.survey(CLUSTER))
        await asyncio.sleep(0.1)
        await remote.machine.start()
        assert (await surveying).gpus == CLUSTER.gpus

    run(run_dir, test)


def test_a_node_that_cannot_be_adopted_is_lost_until_it_can(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        successor = remote.controller("2.a")
        remote.machine.node.fails = "the driver does not answer"
        try:
            await successor.adopt(CLUSTER, {})
            assert successor.away and remote.said("the driver does not answer")
            remote.machine.node.fails = ""
            await until(lambda: not successor.away)
        finally:
            await successor.stop()

    run(run_dir, test)


@pytest.mark.slow
def test_a_node_that_refuses_to_be_reconciled_is_reported_and_lost(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        monkeypatch.setattr(following, "HEADLESS_S", 0.5)
        remote.machine.node.fails = "the driver does not answer"
        remote.node._following.doubt()
        await until(lambda: remote.node.away)
        assert remote.said("node a cannot be reconciled: node a, the node: the driver does not answer")
        remote.machine.node.fails = ""
        await until(lambda: not remote.node.away)

    run(run_dir, test)
