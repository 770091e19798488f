"""Plans for a load that exceeds the cluster's capacity, or without a GPU that is left."""

import asyncio
import json
import threading
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.compiler.store import write_route
from jigsaw_triton.controller import executor as executor_module
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.controller.solving import planned
from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.gpus.model import Cluster, GpuId
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster, row

DEMAND_RPS = {"a": 900.0, "b": 400.0}
"""Requests per second of each graph. The cluster's seven slices can carry 560 in total."""


def graphs_of(priority: int) -> tuple[Problem, Wanted]:
    """Two graphs for which the user requested 100 requests/s each. The second has this priority."""
    graphs = {"a": chain(1, name="a"), "b": replace(chain(1, name="b"), priority=priority)}
    profiles = dict.fromkeys(graphs, ProfileTable([row("t0", "v0", rps=100.0)]))
    workloads = tuple(Workload(g, DEMAND_RPS[name]) for name, g in graphs.items())
    return Problem(workloads, cluster(1), profiles), Wanted(graphs, {"a": 100.0, "b": 100.0}, profiles, cluster(1))


@pytest.mark.slow
@pytest.mark.parametrize(("priority", "expected"), [(1, {"a": 160.0, "b": 400.0}), (-1, {"a": 400.0, "b": 160.0})])
def test_priorities_divide_capacity_above_the_users_demand(priority: int, expected: dict[str, float]) -> None:
    problem, wanted = graphs_of(priority)
    action = a.Solve(wanted, DEMAND_RPS, 2, "measured load", None, wanted.graphs, may_fall_short=True)
    plan = planned(problem, TWO_P95, action)
    assert {name: g.demand_rps for name, g in plan.graphs.items()} == pytest.approx(expected, rel=1e-3)


def test_a_user_demand_above_capacity_is_refused() -> None:
    problem, wanted = graphs_of(1)
    with pytest.raises(InfeasibleError, match="exceeds the cluster"):
        planned(problem, TWO_P95, a.Solve(wanted, DEMAND_RPS, 2, "requested by the user", None, wanted.graphs))


class IdleGateway:
    """A gateway that unloads at once."""

    async def unload(self, names: Sequence[str]) -> None:
        """Does nothing."""


class IdleFleet:
    """A fleet that serves nothing.

    Args:
        lost: GPUs that are lost.
    """

    def __init__(self, lost: Collection[GpuId] = ()) -> None:
        self.gateway = IdleGateway()
        self._lost = lost

    async def serve_on(self, cluster: Cluster) -> None:
        """Does nothing."""

    async def around_others(self, cluster: Cluster) -> Cluster:
        """Returns the cluster without the lost GPUs."""
        return replace(cluster, gpus=tuple(gpu for gpu in cluster.gpus if gpu.id not in self._lost))


@pytest.mark.parametrize(
    ("lost", "text"),
    [
        (["b"], "node b is lost"),
        ([f"b{n}" for n in range(9)], ", ".join([*(f"node b{n} is lost" for n in range(8)), "1 more is lost"])),
        ([f"b{n}" for n in range(10)], ", ".join([*(f"node b{n} is lost" for n in range(8)), "2 more are lost"])),
    ],
)
def test_a_plan_without_a_gpu_names_the_nodes_that_it_lacks(run_dir: Path, lost: Sequence[str], text: str) -> None:
    paths = Paths(run_dir / "state", run_dir)
    paths.state.mkdir()
    _, wanted = graphs_of(1)
    (here,) = wanted.cluster.gpus
    there = tuple(replace(here, id=GpuId(node, 0)) for node in lost)
    wanted = replace(wanted, cluster=replace(wanted.cluster, gpus=(here, *there)))
    cordoned = frozenset({here.id})
    action = a.Solve(wanted, DEMAND_RPS, 2, "node a is drained", None, wanted.graphs, cordoned=cordoned)
    with closing(Journal(paths.journal)) as journal:
        executor = Executor(paths, cast(Fleet, IdleFleet({gpu.id for gpu in there})), {}, journal, PlanningProcess())
        with pytest.raises(InputError) as caught:
            asyncio.run(executor.solve(action, Actual(), frozenset()))
    assert caught.value.message == f"no GPU is left: {text}, node a is withdrawn"


def test_all_routes_get_the_epoch_of_a_controller_that_begins_another_one(run_dir: Path) -> None:
    paths = Paths(run_dir / "state", run_dir / "run")
    paths.create()
    routes: dict[str, tuple[RouteEntry, ...]] = {"app.t0.g1": (), "app.t1.g1": ()}

    def epochs() -> set[int]:
        return {json.loads((paths.run / "routes" / f"{name}.json").read_text())["epoch"] for name in routes}

    with closing(Journal(paths.journal)) as journal:
        executor = Executor(paths, cast(Fleet, IdleFleet()), {}, journal, PlanningProcess())
        asyncio.run(executor.resume(routes))
        before = journal.epoch
        assert epochs() == {before}
        journal.surpass(before + 7)
        asyncio.run(executor.renew())
        assert epochs() == {journal.epoch} != {before}


def test_routes_that_change_while_the_epoch_does_are_not_undone(run_dir: Path) -> None:
    paths = Paths(run_dir / "state", run_dir / "run")
    paths.create()
    before, after = RouteEntry("v", "m", 1, 8), RouteEntry("w", "m", 1, 8)

    async def change(executor: Executor) -> None:
        await executor.resume({"app.t0.g1": (before,)})
        async with executor._writing_routes:
            changing = asyncio.create_task(executor.run(a.SetRoutes({"app.t0.g1": (after,)})))
            await asyncio.sleep(0)
            renewing = asyncio.create_task(executor.renew())
            await asyncio.sleep(0)
        await asyncio.gather(changing, renewing)

    with closing(Journal(paths.journal)) as journal:
        asyncio.run(change(Executor(paths, cast(Fleet, IdleFleet()), {}, journal, PlanningProcess())))
    written = json.loads((paths.run / "routes" / "app.t0.g1.json").read_text())
    assert [entry["worker"] for entry in written["workers"]] == ["w"]


def test_a_route_that_is_removed_while_the_epoch_changes_does_not_come_back(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(run_dir / "state", run_dir / "run")
    paths.create()
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        write_route(*given)

    async def change(executor: Executor) -> None:
        await executor.resume({"app.t0.g1": (), "app.t1.g1": ()})
        monkeypatch.setattr(executor_module, "write_route", slow)
        renewing = asyncio.create_task(executor.renew())
        assert await asyncio.to_thread(begun.wait, 60)
        removing = asyncio.create_task(executor.run(a.UnloadGateway(("app.t1.g1",))))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(renewing, removing)

    with closing(Journal(paths.journal)) as journal:
        asyncio.run(change(Executor(paths, cast(Fleet, IdleFleet()), {}, journal, PlanningProcess())))
    assert [path.stem for path in (paths.run / "routes").glob("*.json")] == ["app.t0.g1"]
