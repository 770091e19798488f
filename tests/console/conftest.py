import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.servers.installation import Installation


class Idle(Executor):
    """Executor whose actions never end."""

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        await asyncio.Event().wait()
        raise AssertionError

    async def run(self, action: a.Action) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Desk:
    """A controller that starts no process."""

    paths: Paths
    journal: Journal
    fleet: Fleet
    controller: Controller


@pytest.fixture
def desk(run_dir: Path) -> Iterator[Desk]:
    paths = Paths(state=run_dir / "state", run=run_dir / "run")
    paths.create()
    journal = Journal(paths.journal)
    installation = Installation(
        binary=Path("/nowhere/tritonserver"),
        env={},
        backend_dir=Path("/nowhere"),
        backends=frozenset({"python"}),
        version="2.51.0",
        origin="package",
    )
    fleet = Fleet(paths, installation, journal, "0123456789abcdef", lambda _: None)
    controller = Controller(Idle(paths, fleet, {}, journal, PlanningProcess()), fleet, journal, Settings())
    yield Desk(paths, journal, fleet, controller)
    journal.close()
