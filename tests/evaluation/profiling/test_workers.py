"""Workers on the measured slice: one server, or one server per instance under MPS."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.controller.persistence.lock import locked
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.evaluation.profiling import workers as module
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from tests.controller.worlds import worker


class FakeFleet:
    """Fleet that records the calls to it."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.done: list[str] = []

    async def bring_up(self, worker: Worker) -> None:
        self.workers[worker.name] = worker
        self.done.append(f"+{worker.name}")

    async def retire(self, name: str) -> None:
        del self.workers[name]
        self.done.append(f"-{name}")

    async def load(self, name: str, models: Sequence[WorkerModel]) -> None:
        self.done.append(f"load {name}")

    async def unload(self, name: str, models: Sequence[str]) -> None:
        self.done.append(f"unload {name}")

    def server(self, name: str) -> Any:
        async def statistics(_: str) -> list[dict[str, str]]:
            return [{"server": name}]

        process = SimpleNamespace(command=SimpleNamespace(address=f"{name}.sock"), log=Path(__file__), pid=None)
        return SimpleNamespace(process=process, client=SimpleNamespace(statistics=statistics))


def workers_on(fleet: FakeFleet, *, mps: bool) -> ProfilingWorkers:
    return ProfilingWorkers(cast(Any, fleet), Gpu(GpuId("n", 0), CATALOG["cpu"]), mps=mps)


@pytest.mark.parametrize("mps", [False, True])
def test_mps_starts_one_server_per_instance(mps: bool) -> None:
    fleet = FakeFleet()
    workers = workers_on(fleet, mps=mps)

    async def main() -> None:
        await workers.start("2g", 2)
        names = list(fleet.workers)
        assert names == (["n-0-2g-0-p1", "n-0-2g-0-p2"] if mps else ["n-0-2g-0"])
        assert {w.memory_mib for w in fleet.workers.values()} == {8192 if mps else 16384}
        fleet.done.clear()
        await workers.start("2g", 2)
        assert fleet.done == []
        await workers.start("2g", 1)
        assert list(fleet.workers) == (["n-0-2g-0-p1"] if mps else ["n-0-2g-0"])
        assert fleet.done == (["-n-0-2g-0-p2", "-n-0-2g-0-p1", "+n-0-2g-0-p1"] if mps else [])
        await workers.stop()
        assert fleet.workers == {}

    asyncio.run(main())


def test_all_servers_load_the_model_and_lanes_use_them_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Connection", lambda address, _timeout_s: address)
    fleet = FakeFleet()
    workers = workers_on(fleet, mps=True)
    (model,) = worker("0/2g@0", ("t0", "a")).models

    async def main() -> None:
        await workers.start("2g", 2)
        fleet.done.clear()
        async with workers.loaded(model):
            assert [cast(Any, workers.connect(lane)) for lane in range(3)] == [
                "unix:n-0-2g-0-p1.sock",
                "unix:n-0-2g-0-p2.sock",
                "unix:n-0-2g-0-p1.sock",
            ]
            assert [s["server"] for s in await workers.statistics(model.name)] == ["n-0-2g-0-p1", "n-0-2g-0-p2"]
        assert fleet.done == ["load n-0-2g-0-p1", "load n-0-2g-0-p2", "unload n-0-2g-0-p1", "unload n-0-2g-0-p2"]

    asyncio.run(main())


def test_folders_of_killed_runs_are_removed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    on_cpu = Cluster((Gpu(GpuId("n", 0), CATALOG["cpu"]),))
    killed, runs, starts, other = (
        tmp_path / name for name in ("jigsaw-profile-a", "jigsaw-profile-b", "jigsaw-profile-c", "x")
    )
    for folder in (killed, runs, starts, other):
        folder.mkdir()
        deployment_paths(folder).create()
    for folder in (killed, runs, other):
        os.utime(folder, (0, 0))
    socket = deployment_paths(killed).run
    assert socket.exists()
    with locked(deployment_paths(runs).lock):
        os.utime(runs, (0, 0))
        with module._folders(on_cpu) as paths:
            assert paths.state.exists()
            assert {path.name for path in tmp_path.iterdir()} == {runs.name, starts.name, other.name, paths.state.name}
    assert not socket.exists()
    for folder in (runs, starts, other):
        shutil.rmtree(deployment_paths(folder).run)
