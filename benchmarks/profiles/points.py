"""Share of a complete sweep of docread that `profile` measures, and the slices of plans from it.

The complete sweep is measured once, on this machine. The sparse table has those of its rows that `profile` would have
measured, and fitted rows for the others, so that both tables share all disturbances. The plans from both are compared,
and simulated with the complete table.
"""

from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.command import application, profile
from benchmarks.profiles.regret import Case
from jigsaw_triton.api.files import load_graph
from jigsaw_triton.evaluation.profiling.agenda import Agenda, default_points
from jigsaw_triton.evaluation.profiling.completion import completed
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable

APPLICATION = "docread"
VARIANTS = ("v6_tiny_352", "v6_tiny_480", "v6_tiny", "v6_small")
"""Two variants of each task: with all seven, the complete sweep takes three quarters of an hour."""

GRID = (
    *(word for name in VARIANTS for word in ("--variant", name)),
    "--instances",
    "1,2,3,4",
    "--batches",
    "1,2,3,4,6,8",
)
"""Sweep of as many configurations of a variant as the default, without its batches of up to 32, which take seconds
here."""

SMALL_GRID = ("--variant", "v6_tiny_480", "--variant", "v6_tiny", "--instances", "1", "--batches", "1,2")
"""Sweep of a smoke run."""

SECONDS = 2.0
"""Longest measurement of a configuration: there are many, and both tables rest on the same measurements."""

GPUS = 8
DEMANDS_RPS = (10.0, 20.0, 40.0)
BOARD = "cpu"
ROOMS = {(BOARD, kind): float(known.memory_mib or 0) for kind, known in board(BOARD).profiles.items()}
PLAN_LIMIT_S = 20.0
REQUESTS = 5_000


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    grid = GRID if effort.load_share == 1 else SMALL_GRID
    seconds = effort.seconds(SECONDS, least_s=0.1)
    with application(APPLICATION) as folder:
        progress(f"points: the complete sweep of {APPLICATION}")
        profile(folder, "--points", "all", "--seconds", f"{seconds:g}", *grid)
        graph, complete = load_graph(folder), read_profiles(folder)
    measured = designed(graph, complete)
    sparse, _ = completed(ProfileTable(measured), [row.key for row in complete.rows()], (), ROOMS)
    slices, base, broken, base_broken = 0, 0, 0, 0
    within = graph.slo.percentile / 100
    for demand_rps in DEMANDS_RPS[: effort.count(len(DEMANDS_RPS))]:
        case = Case(
            _problem(graph, demand_rps, complete), effort.seconds(PLAN_LIMIT_S), max(500, effort.count(REQUESTS))
        )
        ours, theirs = (case.held(case.plan(table)) for table in (sparse, complete))
        progress(f"points: {demand_rps:g} requests/s: complete {theirs}, sparse {ours}")
        slices, base = slices + ours.slices, base + theirs.slices
        broken, base_broken = broken + (ours.within < within), base_broken + (theirs.within < within)
    share = len(measured) / len(complete)
    what = f"{len(measured)} of {len(complete)} configurations of {len(graph.tasks)} tasks of {APPLICATION}"
    plans = f"plans for {', '.join(f'{demand:g}' for demand in DEMANDS_RPS)} requests/s on {GPUS} cpu boards"
    judged = f"{plans} with less than {within:.0%} of simulated requests within the SLO; baseline: complete profiles"
    regret = slices / base - 1
    return [
        figure("profiles.points", share, "share", f"{what}; regret {regret:.3f}", at_most=0.25),
        figure("profiles.points.regret", regret, "share", f"{slices} slices over {base}, {plans}", at_most=0.03),
        figure("profiles.points.broken", broken, "plans", judged, baseline=base_broken),
    ]


def designed(graph: TaskGraph, complete: ProfileTable) -> list[ProfileRow]:
    """Returns the rows that `profile` would have measured."""
    rows = {row.key: row for row in complete.rows()}
    variants = {(key.task, key.variant) for key in rows}
    agenda = Agenda(list(rows), default_points(len(rows) // len(variants)), graph.slo.latency_ms, {}, ())
    found: list[ProfileRow] = []
    while keys := agenda.round():
        for key in keys:
            agenda.add_measured(key, rows[key].latency_p50_ms)
            found.append(rows[key])
    return found


def _problem(graph: TaskGraph, demand_rps: float, table: ProfileTable) -> Problem:
    gpus = tuple(Gpu(GpuId("bench", index), board(BOARD)) for index in range(GPUS))
    return Problem((Workload(graph, demand_rps),), Cluster(gpus), {graph.name: table})
