"""Problems and options of the tests of shared slices."""

from dataclasses import replace

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import cluster, grid

CPU = board("cpu")
SHARE = Options(share=True, latency_model="2p95", time_limit_s=30.0)
QUEUE = replace(SHARE, latency_model="queue")


def several(
    *graphs: tuple[int, float, float], rows: dict[str, list[ProfileRow]] | None = None, gpus: int = 1, ms: float = 8.0
) -> Problem:
    """A problem of chains g0, g1, ..., each given by its number of tasks, SLO in ms, and requests a second."""
    workloads, tables = [], {}
    for number, (tasks, slo_ms, rps) in enumerate(graphs):
        g = replace(chain(tasks, slo=Slo(slo_ms)), name=f"g{number}")
        own = rows[g.name] if rows else [r for t in g.tasks for r in grid(t, "v0", ms, instances=[1])]
        workloads.append(Workload(g, rps))
        tables[g.name] = ProfileTable(own)
    return Problem(tuple(workloads), cluster(gpus), tables)


def together(plan: Plan) -> list[list[str]]:
    """Names of the tasks in each slice."""
    return sorted(sorted(f"{m.graph}.{m.task}" for m in p.models) for gpu in plan.gpus for p in gpu.layout)
