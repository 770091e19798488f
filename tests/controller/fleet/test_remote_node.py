"""Operations on a node behind an agent: its workers and their files, GPUs, energy and traces."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.agent_calls import AwayError
from jigsaw_triton.errors import ServerError
from jigsaw_triton.runtime.trace import TraceFile
from tests.fakes.node import CLUSTER, GPU, model, worker
from tests.fakes.remote_node import Remote, W, run
from tests.waiting import until


def test_a_worker_comes_with_its_files_and_goes(run_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many" * 100_000)

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m", weights)))
        (found,) = remote.machine.node.workers[W].models
        files = {name: content.source.read_bytes() for name, content in found.folder.files.items()}  # type: ignore[union-attr]
        assert files == {"config.pbtxt": b"m", "1/model.onnx": weights.read_bytes()}
        assert W in remote.node.running and remote.node.process(W) is not None
        assert remote.machine.published[-1] == {W}
        await remote.node.load(W, [model("n")])
        assert [m.name for m in remote.node.workers[W].models] == ["m", "n"]
        await remote.node.unload(W, ["m"])
        assert [m.name for m in remote.node.workers[W].models] == ["n"]
        await remote.node.retire(W)
        assert remote.node.workers == {} and remote.machine.published[-1] == set()
        assert remote.machine.node.log == [
            "serve-on",
            f"bring up {W}",
            f"load {W} n",
            f"unload {W} m",
            f"retire {W}",
        ]

    run(run_dir, test)


def test_an_error_of_the_node_has_its_place_and_hint(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.fails = "the model does not load"
        with pytest.raises(ServerError, match="the model does not load") as caught:
            await remote.node.bring_up(worker(W, model("m")))
        assert (caught.value.where, caught.value.hint) == ("node a, the node", "look")
        assert remote.node.workers == {}

    run(run_dir, test)


def test_a_worker_is_not_started_twice(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        one = worker(W, model("m"))
        await remote.node.bring_up(one)
        await remote.node.bring_up(one)
        assert remote.machine.node.log.count(f"bring up {W}") == 1
        await remote.node.bring_up(replace(one, models=(model("n"),)))
        assert remote.machine.node.log[-2:] == [f"retire {W}", f"bring up {W}"]

    run(run_dir, test)


def test_records_of_traced_batches_come_from_the_node_once(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        assert await remote.node.run_records() == []
        records = TraceFile(remote.machine.traces / W / "m_0.jsonl")
        records.append(["one", "two"])
        assert await remote.node.run_records() == ["one", "two"]
        assert await remote.node.run_records() == []
        await remote.machine.cut()
        assert await remote.node.run_records() == []

    run(run_dir, test)


def test_lost_gpus_and_use_come_from_the_node(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        remote.machine.node.lost = frozenset({GPU})
        assert await remote.node.lost_gpus() == {GPU}
        assert (await remote.node.survey(CLUSTER)).gpus == ()
        assert (await remote.node.use())[W].memory_mib == 10
        remote.machine.node.joules = {GPU: 12.5}
        assert await remote.node.energy() == {GPU: 12.5}

    run(run_dir, test)


def test_workers_that_start_together_can_all_be_called(run_dir: Path) -> None:
    names = [f"a-0-1g-{start}" for start in range(4)]

    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = [asyncio.create_task(remote.node.bring_up(worker(n, start=i))) for i, n in enumerate(names)]
        await until(lambda: len(remote.machine.published) == len(names))
        assert remote.machine.published[-1] == set(names)
        remote.machine.node.gate.set()
        await asyncio.gather(*starting)
        assert set(remote.node.running) == set(names)

    run(run_dir, test)


@pytest.mark.slow
def test_a_condemned_worker_is_killed_once_its_agent_answers(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.node.bring_up(worker(W))
        await remote.machine.cut()
        killing = asyncio.create_task(remote.node.kill(W, "it hangs"))
        await asyncio.sleep(0.6)
        assert not remote.node.away
        await remote.machine.reach()
        await killing
        assert remote.machine.node.log.count(f"kill {W}: it hangs") == 1

    run(run_dir, test)


@pytest.mark.slow
def test_the_delay_of_a_restart_passes_although_the_node_is_away(run_dir: Path) -> None:
    """Otherwise the restart would fail at once, and so would the next ones."""

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        restart = asyncio.create_task(remote.node.restart(worker(W, model("m")), 3600.0))
        done, _ = await asyncio.wait([restart], timeout=0.1)
        assert not done
        restart.cancel()
        with pytest.raises(AwayError):
            await remote.node.restart(worker(W, model("m")), 0.01)

    run(run_dir, test)


def test_a_worker_that_is_retired_before_its_restart_stays_away(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        restart = asyncio.create_task(remote.node.restart(worker(W, model("m")), 0.2))
        await asyncio.sleep(0)
        await remote.node.retire(W)
        with pytest.raises(ServerError, match="the worker no longer exists"):
            await restart
        assert remote.node.running == {}

    run(run_dir, test)
