"""Routes of a controller that another one has replaced, with the core of the gateway's backend."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence import journal_file
from jigsaw_triton.controller.persistence.epoch import SupersededError
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.gpus.model import Cluster
from tests.native import specs
from tests.native.conftest import column, double
from tests.native.core import Engine
from tests.native.worker import Worker
from tests.waiting import eventually


class QuickGateway:
    """A gateway that restarts at once."""

    async def restart(self, ports: GatewayPorts, models: Sequence[ModelFolder], delay_s: float) -> None:
        """Does nothing."""


class QuickFleet:
    """A fleet of a gateway that restarts at once."""

    gateway = QuickGateway()


class Takeover:
    """A gateway that serves task `t` with the worker `new`, on a route of the second of two controllers.

    Args:
        run_dir: Run directory of the deployment.
        stack: Exit stack that closes everything.
    """

    def __init__(self, run_dir: Path, stack: ExitStack) -> None:
        self.paths = Paths(run_dir / "state", run_dir)
        self.paths.state.mkdir()
        self.ended: list[SupersededError] = []
        self.engine = stack.enter_context(Engine(run_dir))
        self.workers = {name: stack.enter_context(Worker(run_dir, name, double)) for name in ("old", "new")}
        self.old, self.new = (self.controller(stack) for _ in range(2))
        self.set_route(self.new, "new")
        self.front = self.engine.front(specs.spec())
        stack.callback(self.front.close)

    def controller(self, stack: ExitStack) -> Executor:
        """Returns the executor of a further controller."""
        journal = stack.enter_context(closing(Journal(self.paths.journal, self.ended.append, self.paths.epoch)))
        return Executor(self.paths, cast(Fleet, QuickFleet()), {}, journal, PlanningProcess())

    def set_route(self, controller: Executor, worker: str) -> None:
        """Has a controller route the task to a worker."""
        asyncio.run(controller.run(a.SetRoutes({"t": (RouteEntry(worker, "m", 4, 1),)})))

    def calls(self) -> dict[str, int]:
        """Sends a request and returns the number of calls of each worker so far."""
        assert self.front.ask({"X": column(1)})["Y"].item() == 2
        return {name: len(worker.calls) for name, worker in self.workers.items()}


@pytest.fixture
def takeover(run_dir: Path) -> Iterator[Takeover]:
    with ExitStack() as stack:
        yield Takeover(run_dir, stack)


def nothing(*_: object) -> None:
    """Stands in for a check that does not work."""


def without(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    """Makes checks of epochs pass."""
    for check in checks:
        monkeypatch.setattr(journal_file, check, nothing)


def test_the_gateway_ends_a_replaced_controller_whose_journal_does_not(
    takeover: Takeover, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "check_epoch")
    before = (takeover.paths.run / "routes" / "t.json").read_bytes()
    with pytest.raises(SupersededError, match=r"the gateway has routes of epoch 2, and .* epoch, 1\..*, is over"):
        takeover.set_route(takeover.old, "old")
    assert len(takeover.ended) == 1
    assert (takeover.paths.run / "routes" / "t.json").read_bytes() == before


def test_the_gateway_refuses_the_route_of_a_replaced_controller_that_checks_nothing(
    takeover: Takeover, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unchecked:
        without(unchecked, "check_epoch", "check_gateway")
        takeover.set_route(takeover.old, "old")
    assert takeover.calls() == {"old": 0, "new": 1}
    eventually(lambda: any("route t is refused" in line for line in takeover.engine.logs))
    # The file has the refused route, which a gateway that starts again would refuse, too.
    wanted = Wanted({}, {}, {}, Cluster(()))
    asyncio.run(takeover.new.run(a.RestartGateway(wanted, (), 0.0)))
    with Engine(takeover.paths.run) as again, again.front(specs.spec()) as front:
        assert front.ask({"X": column(1)})["Y"].item() == 2
    assert takeover.calls() == {"old": 0, "new": 3}


def test_a_controller_without_a_journal_is_later_than_the_routes_of_the_gateway(takeover: Takeover) -> None:
    for path in takeover.paths.state.iterdir():
        path.unlink()
    with ExitStack() as stack:
        takeover.set_route(takeover.controller(stack), "old")
        assert takeover.calls() == {"old": 1, "new": 0}
