import asyncio
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.fleet.mig_pool import MigPool
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InstanceInUseError, MissingDependencyError, ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId
from jigsaw_triton.servers.mps import end_processes
from tests.controller.worlds import BOARD, worker
from tests.fakes import mps

ALONE = worker("0/2g@0")
ONE, TWO = (replace(ALONE, name=f"{ALONE.name}-p{process}", process=process) for process in (1, 2))
PIPES = "n-0-2g-0"


class World:
    """A MIG pool on an emulated GPU, with the workers that it reported as broken."""

    def __init__(self, folder: Path) -> None:
        self.held: tuple[int, ...] = ()
        self.paths = Paths(folder / "state", folder / "run")
        self.paths.state.mkdir()
        self.journal = Journal(self.paths.journal)
        gpus = [Gpu(GpuId("n", 0), CATALOG[BOARD])]
        self.driver = EmulatedMigDriver(folder / "mig.json", gpus, holders_of=lambda _: self.held)
        self.broken: list[set[str]] = []
        self.pool = MigPool(self.paths, self.journal, self._note)
        instances = Instances(self.journal, self.driver, sleep=lambda _: None)
        self.pool.drive(instances, daemons=True)
        self.bare = instances

    def _note(self, workers: Collection[str]) -> None:
        self.broken.append(set(workers))

    @property
    def uuids(self) -> list[str]:
        return [instance.uuid for instance in self.driver.instances()]

    async def take(self, *workers: Worker) -> None:
        await asyncio.gather(*map(self.pool.take, workers))

    async def leave(self, *workers: Worker) -> None:
        await asyncio.gather(*(self.pool.leave(worker.name) for worker in workers))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PATH", f"{mps.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    world = World(tmp_path)
    yield world
    world.journal.close()
    assert end_processes(world.paths.mps(PIPES)) == 0


def test_processes_share_an_instance_and_its_daemon_until_the_last_leaves(world: World) -> None:
    async def main() -> None:
        await world.take(ONE, TWO)
        (uuid,) = world.uuids
        assert (world.pool.uuid(ONE.name), world.pool.uuid(TWO.name)) == (uuid, uuid)
        daemon = await world.pool.daemon(ONE.name)
        assert daemon is not None and daemon is await world.pool.daemon(TWO.name)
        await world.leave(ONE)
        assert daemon.runs and world.uuids == [uuid]
        await world.leave(TWO)
        assert not daemon.runs

    asyncio.run(main())
    assert world.uuids == [] and world.broken == []


def test_a_server_alone_on_its_instance_needs_no_daemon(world: World) -> None:
    async def main() -> None:
        await world.take(ALONE)
        assert await world.pool.daemon(ALONE.name) is None
        await world.leave(ALONE)
        await world.leave(ALONE)

    asyncio.run(main())
    assert world.uuids == []


def test_an_emulated_instance_is_shared_without_a_daemon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    world.pool.drive(world.bare, daemons=False)

    async def main() -> None:
        await world.take(ONE, TWO)
        assert await world.pool.daemon(ONE.name) is None
        assert len(world.uuids) == 1
        await world.leave(ONE, TWO)

    asyncio.run(main())
    assert world.uuids == []


def test_no_instance_is_created_if_mps_is_not_installed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError):
        asyncio.run(world.pool.take(ONE))
    assert world.uuids == []


def test_a_daemon_that_does_not_start_leaves_no_instance(world: World, tmp_path: Path) -> None:
    mps.install(tmp_path / "bin", like="broken")
    with pytest.raises(ServerError, match="ended before it answered"):
        asyncio.run(world.pool.take(ONE))
    assert world.uuids == []


def test_a_dead_daemon_is_reported_and_restarted(world: World) -> None:
    async def main() -> None:
        await world.take(ONE, TWO)
        pid = int((world.paths.mps(PIPES) / "nvidia-cuda-mps-control.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        daemon = await world.pool.daemon(ONE.name)
        while not world.broken:
            await asyncio.sleep(0.01)
            daemon = await world.pool.daemon(ONE.name)
        assert daemon is not None and daemon.runs
        assert await daemon.clients() == frozenset()
        await world.leave(ONE, TWO)

    asyncio.run(main())
    assert world.broken == [{ONE.name, TWO.name}]


@pytest.mark.slow
def test_a_hanging_daemon_is_reported_and_restarted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await world.take(ONE, TWO)
        pid = int((world.paths.mps(PIPES) / "nvidia-cuda-mps-control.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr("jigsaw_triton.servers.mps._ANSWER_S", 1.0)
        daemon = await world.pool.daemon(ONE.name)
        monkeypatch.undo()
        assert daemon is not None and await daemon.answers()
        await world.leave(ONE, TWO)

    asyncio.run(main())
    assert world.broken == [{ONE.name, TWO.name}]


def test_leaving_can_be_repeated_after_a_failed_destruction(world: World) -> None:
    async def main() -> None:
        await world.take(ONE)
        world.held = (4711,)
        with pytest.raises(InstanceInUseError):
            await world.leave(ONE)
        world.held = ()
        await world.leave(ONE)

    asyncio.run(main())
    assert world.uuids == []


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_worker_leaves_an_instance_that_is_forgotten_at_the_same_moment(world: World, leaves_first: bool) -> None:
    async def main() -> None:
        await world.take(ALONE)
        world.driver.lose(GpuId("n", 0))
        calls = [world.pool.leave(ALONE.name), world.pool.forget(ALONE.name, world.pool.uuid(ALONE.name))]
        await asyncio.gather(*(calls if leaves_first else reversed(calls)))
        assert world.pool.uuid(ALONE.name) == ""

    asyncio.run(main())
    assert not world.journal.instances() and not world.uuids


def test_an_instance_that_has_replaced_a_lost_one_is_not_forgotten(world: World) -> None:
    async def main() -> None:
        await world.take(ALONE)
        await world.pool.forget(ALONE.name, "MIG-lost")
        assert world.uuids == [world.pool.uuid(ALONE.name)]
        await world.leave(ALONE)

    asyncio.run(main())
