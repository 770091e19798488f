"""Tests of lower bounds against the optima that solvers prove."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.graph.model import Slo, TaskGraph, Workload
from jigsaw_triton.planner.bounds import forest
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.bounds.cover import FloorCover
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, available
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.supply import supply
from jigsaw_triton.planner.search.solve import DEFAULTS, SolverFactory, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.examples import costly
from tests.fakes.graphs import chain, conditional, diamond, fan_out
from tests.fakes.problems import TWO_P95, cluster, docread_problem, grid, problem, row
from tests.planner.ideal import fewest_slices

EITHER = st.sampled_from([DEFAULTS, TWO_P95])
"""Options with either latency model; with `TWO_P95` a program has a tenth of the columns."""


def candidates(p: Problem, options: Options = DEFAULTS) -> tuple[Workload, TaskConfigurations]:
    p = p.prepared()
    (workload,) = p.workloads
    found = available(workload.graph, p.profiles[workload.graph.name], p.boards, options)
    return workload, worthwhile(workload.graph, found)


def fewest(
    p: Problem,
    workload: Workload,
    found: TaskConfigurations,
    highs: SolverProcess,
    using: Configuration | None = None,
    *,
    proven: bool = False,
) -> float:
    """Returns the fewest slices by the whole program with unlimited GPUs, and with a replica of one configuration.

    Unless they must be proven, the result may be an upper bound on them, which no lower bound exceeds either.
    """
    supplies = [supply(p.cluster, b, {c.slice for own in found.values() for c in own}) for b in p.boards]
    ideal = allocation([workload], {workload.graph.name: found}, supplies, "ideal")
    return fewest_slices(ideal, using, highs, proven=proven)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    make = draw(st.sampled_from([chain, fan_out, diamond, conditional]))
    slo = Slo(draw(st.integers(40, 400)), accuracy=draw(st.sampled_from([0.6, 0.8, 0.9, 0.97, 1.0])))
    graph: TaskGraph = make(variant_count=3, slo=slo)
    rng = random.Random(draw(st.integers(0, 1000)))
    rows = []
    for name in graph.tasks:
        for variant, part in (("v0", 1.0), ("v1", 0.6), ("v2", 0.35)):
            cost = part * rng.uniform(2, 30)
            rows += grid(name, variant, cost, slices=["1g", "2g", "3g"], instances=[1], batches=[1, 4])
    return problem(graph, rows, demand_rps=draw(st.sampled_from([0.1, 1, 7, 40, 300, 5000])), gpus=2)


@pytest.mark.slow
@given(p=problems(), options=EITHER, which=st.integers(0, 10**6))
@costly(12)
def test_no_plan_takes_fewer_slices_than_the_bound(
    p: Problem, options: Options, which: int, highs: SolverProcess
) -> None:
    workload, found = candidates(p, options)
    if not all(found.values()):
        return
    bounds = least_slices(workload, found)
    assert bounds.least <= fewest(p, workload, found, highs)
    every = sorted(c for own in found.values() for c in own)
    one = every[which % len(every)]
    assert bounds.least <= bounds.using(1e9)[one] <= fewest(p, workload, found, highs, one)


def test_the_bound_of_a_small_chain_is_exact(highs: SolverProcess) -> None:
    g = chain(3, slo=Slo(100.0, accuracy=0.5))
    rows = [
        r for t in g.tasks for r in grid(t, "v0", 10.0, slices=["1g", "2g", "7g"], instances=[1], batches=[1, 2, 4])
    ]
    p = problem(g, rows, demand_rps=100)
    workload, found = candidates(p)
    assert least_slices(workload, found).least == fewest(p, workload, found, highs, proven=True)


def test_a_rate_exceeded_by_a_rounding_error_needs_no_other_replica() -> None:
    p = problem(chain(1), [row("t0", "v0", slice_="3g", rps=87.5), row("t0", "v0", rps=20.0)], demand_rps=70 + 1e-12)
    workload, found = candidates(p)
    bounds = least_slices(workload, found)
    assert bounds.least == 3
    assert {c.slice: slices for c, slices in bounds.using(1e9).items()} == {"1g": 1 + 3, "3g": 3}


def test_an_accurate_source_counts_with_the_rows_it_yields() -> None:
    g = fan_out(variant_count=2, slo=Slo(1000.0, accuracy=1.0))
    detect = g.tasks["detect"]
    coarse = replace(detect, variants=(detect.variants[0], replace(detect.variants[1], yields={"CROPS": 1.0})))
    g = replace(g, tasks={**g.tasks, "detect": coarse})
    loose = replace(g, slo=Slo(1000.0, accuracy=0.1))
    rows = [row(t, v, rps=100.0, p95_ms=10.0) for t in g.tasks for v in ("v0", "v1")]
    strict, lax = (least_slices(*candidates(problem(x, rows, demand_rps=80))).least for x in (g, loose))
    assert (strict, lax) == (1 + 3, 1 + 1)


def test_the_bound_is_infinite_if_the_slo_is_out_of_reach() -> None:
    g = chain(2, variant_count=2, slo=Slo(1000.0, accuracy=0.8))
    workload, found = candidates(problem(g, [row(t, v) for t in g.tasks for v in ("v0", "v1")]))
    assert least_slices(workload, found).least == 2
    strict = replace(workload, graph=replace(g, slo=Slo(1000.0, accuracy=0.95)))
    only_coarse = {task: tuple(c for c in own if c.variant == "v1") for task, own in found.items()}
    assert all(only_coarse.values())
    assert least_slices(strict, only_coarse).least == math.inf


@pytest.mark.parametrize("limit", ["MOST_CALLS", pytest.param("MOST_CELLS", marks=pytest.mark.slow)])
def test_fewer_call_rates_or_coarser_bins_only_lower_the_bound(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workload, found = candidates(docread_problem(60))
    fine = least_slices(workload, found)
    monkeypatch.setattr(forest, limit, 1)
    coarse = least_slices(workload, found)
    assert coarse.least <= fine.least
    assert all(coarse.using(1e9)[c] <= fine.using(1e9)[c] for c in fine.using(1e9))


def test_within_keeps_the_configurations_below_the_limit() -> None:
    workload, found = candidates(docread_problem(60))
    bounds = least_slices(workload, found)
    kept = bounds.within(0.0, found)
    assert all(kept.values())
    assert {c for own in kept.values() for c in own} == {c for c, n in bounds.using(1e9).items() if n == bounds.least}
    assert bounds.within(1e9, found) == dict(found)


def test_a_plan_far_above_the_bound_is_found(solvers: SolverFactory) -> None:
    """A GPU holds one 4g slice; the bound ignores layouts and counts six of them on four GPUs."""
    board = "A100-80GB"
    rows = [row("t0", "v0", gpu=board, slice_=kind, rps=rps) for kind, rps in (("4g", 500.0), ("1g", 100.0))]
    p = problem(chain(1), rows, demand_rps=2400)
    p = replace(p, cluster=cluster(4, of=board))
    assert least_slices(*candidates(p, TWO_P95)).least == 24
    assert make_plan(p, TWO_P95, solvers=solvers).slices_used == 4 * 4 + 10


@pytest.fixture
def covers(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Configuration]]:
    """The configurations of each cover that is computed."""
    made = []

    def counted(found: Sequence[Configuration], bin_ms: float) -> FloorCover:
        made.append(found)
        return FloorCover(found, bin_ms)

    monkeypatch.setattr(forest, "FloorCover", counted)
    return made


def test_what_does_not_depend_on_the_demand_is_computed_once(covers: list[Sequence[Configuration]]) -> None:
    workload, found = candidates(docread_problem(batches=(1, 3)))
    for demand_rps in (10.0, 20.0, 30.0):
        assert least_slices(replace(workload, demand_rps=demand_rps), found).least > 0
    assert covers == [*found.values()]


def test_other_calls_change_the_bound_without_new_covers(covers: list[Sequence[Configuration]]) -> None:
    rows = [row(t, "v0", slice_="1g", rps=11.0, p95_ms=10.0) for t in fan_out().tasks]
    workload, found = candidates(problem(fan_out(), rows, demand_rps=60))
    detect = workload.graph.tasks["detect"]
    measured = replace(detect, variants=tuple(replace(v, yields={"CROPS": 30.0}) for v in detect.variants))
    more = replace(workload, graph=replace(workload.graph, tasks={**workload.graph.tasks, "detect": measured}))
    assert least_slices(more, found).least > least_slices(workload, found).least
    assert covers == [*found.values()]
