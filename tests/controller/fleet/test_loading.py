"""Workers that die or hang while they load their models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, Place, Worker, WorkerModel
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import health, local_node
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.servers.installation import Installation
from tests.controller.fleet.test_fleet import CODE, CONFIG
from tests.waiting import until

pytestmark = pytest.mark.e2e

GPU = GpuId("local", 0)
BARE = Worker("local-0-1g-0", (), Place(GPU, "cpu", Placement(0, "1g")), 1000)
KILL = """
import os, signal
from pathlib import Path

class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        deaths = Path({path!r})
        left = int(deaths.read_text())
        deaths.write_text(str(left - 1))
        if left > 0:
            os.kill(os.getppid(), signal.SIGKILL)
"""
STOP = """
import os, signal

class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        os.kill(os.getpid(), signal.SIGSTOP)
"""


class Stand:
    """A fleet on an emulated GPU, and its events.

    Args:
        fleet: Fleet, which has no servers.
        events: Events that the fleet has sent.
        folder: Folder for files of the models.
    """

    def __init__(self, fleet: Fleet, events: list[e.Event], folder: Path) -> None:
        self.fleet = fleet
        self.events = events
        self._deaths = folder / "deaths"

    def dying(self, times: int) -> WorkerModel:
        """Returns a model that kills its server at its first loads."""
        self._deaths.write_text(str(times))
        return self.model(KILL.format(path=str(self._deaths)))

    def model(self, change: str, name: str = "echo") -> WorkerModel:
        """Returns a model whose code is followed by a change."""
        config, code = CONFIG.replace('"echo"', f'"{name}"'), CODE + change
        folder = ModelFolder(name, {"config.pbtxt": config.encode(), "1/model.py": code.encode()})
        return WorkerModel(folder, "g", "t", "v", 1, 8, "digest")

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Runs a test, after which the worker is retired."""

        async def whole() -> None:
            await self.fleet.serve_on(Cluster((Gpu(GPU, CATALOG["cpu"]),)))
            try:
                await main()
            finally:
                await self.fleet.retire(BARE.name)

        asyncio.run(whole())

    async def served(self) -> dict[str, str]:
        """Returns the state of each model of the worker."""
        server = self.fleet.server(BARE.name)
        assert server is not None
        return dict(await server.client.index())

    def told(self) -> list[str]:
        """Returns the sentences that the fleet has added to the event log."""
        return [event.text for event in self.events if isinstance(event, e.Noticed)]

    def exits(self) -> list[str]:
        """Returns the reasons why the worker has ended."""
        return [event.status for event in self.events if isinstance(event, e.WorkerExited)]


@pytest.fixture
def stand(installation: Installation, run_dir: Path, tmp_path: Path) -> Iterator[Stand]:
    paths = Paths(run_dir / "state", run_dir / "run")
    paths.create()
    events: list[e.Event] = []
    with closing(Journal(paths.journal)) as journal:
        yield Stand(Fleet(paths, installation, journal, "0123456789abcdef", events.append), events, tmp_path)


def test_a_worker_that_dies_while_it_loads_is_started_again_on_the_same_slice(stand: Stand) -> None:
    model = stand.dying(2)

    async def main() -> None:
        await stand.fleet.bring_up(replace(BARE, models=(model,)))
        assert await stand.served() == {"echo": "READY"}

    stand.run(main)
    text = f"worker {BARE.name} ended while it loaded its models; starting it again"
    assert stand.told() == [f"{text} now", f"{text} in 1 s"]


def test_a_worker_that_keeps_dying_is_given_up_and_leaves_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_node, "RELOAD_S", 0.0)
    model = stand.dying(100)

    async def main() -> None:
        with pytest.raises(ServerError, match="cannot load model echo"):
            await stand.fleet.bring_up(replace(BARE, models=(model,)))
        assert stand.fleet.server(BARE.name) is None

    stand.run(main)
    assert stand.told() == []


def test_models_are_loaded_on_the_worker_that_replaces_a_dead_one(stand: Stand) -> None:
    model = stand.dying(1)

    async def main() -> None:
        await stand.fleet.bring_up(BARE)
        loading = asyncio.create_task(stand.fleet.load(BARE.name, [model]))
        while not stand.exits():
            assert not loading.done()
            await asyncio.sleep(0.01)
        await stand.fleet.restart(BARE, 0.0)
        await loading
        assert await stand.served() == {"echo": "READY"}

    stand.run(main)


def test_a_model_that_cannot_be_loaded_does_not_start_its_worker_again(stand: Stand) -> None:
    broken = replace(stand.dying(0), folder=ModelFolder("echo", {"config.pbtxt": b"backend: 'python'"}))

    async def main() -> None:
        with pytest.raises(ServerError, match="cannot load model echo"):
            await stand.fleet.bring_up(replace(BARE, models=(broken,)))

    stand.run(main)
    assert stand.told() == []


def test_a_model_that_hangs_while_it_is_loaded_is_killed_with_its_worker(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "STUCK_S", 3.0)

    async def main() -> None:
        with pytest.raises(ServerError, match="cannot load model echo"):
            await stand.fleet.bring_up(replace(BARE, models=(stand.model(STOP),)))
        assert stand.fleet.server(BARE.name) is None

    stand.run(main)
    assert stand.told() == []
    assert f"{BARE.name} is killed, because its model echo made no progress for 3 s while it was loaded" in caplog.text


def test_a_model_that_hangs_while_it_is_loaded_beside_others_is_not_loaded_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change fails, and the worker is restarted with the models that it had."""
    monkeypatch.setattr(health, "STUCK_S", 3.0)
    before = replace(BARE, models=(stand.model(""),))

    async def main() -> None:
        await stand.fleet.bring_up(before)
        loading = asyncio.create_task(stand.fleet.load(BARE.name, [stand.model(STOP, "hangs")]))
        await until(stand.exits)
        await stand.fleet.restart(before, 0.0)
        with pytest.raises(ServerError, match="cannot load model hangs"):
            await loading
        (cause,) = stand.exits()
        assert cause == "killed, because its model hangs made no progress for 3 s while it was loaded"
        assert (await stand.served())["echo"] == "READY"

    stand.run(main)
