"""The paper's formulation and the subsets of features, compared with exhaustive search and with each other."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError, UnplacedError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.domain.features import SUBSETS
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import FORMULATIONS, LATENCY_MODEL_OF, Formulation, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, allot, largest_demand, make_largest_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import TWO_P95, grid, problem, row
from tests.fakes.replicas import replica_counts

CPU = board("cpu")
CUTS = [Counter(m) for m in maximal_multisets(CPU)]
every_subset = pytest.mark.parametrize("features", SUBSETS)
both = pytest.mark.parametrize("formulation", FORMULATIONS)
PAPER = replace(TWO_P95, formulation="paper")

LargestPlan = Callable[[Formulation, str], Plan]


def usual(formulation: Formulation, features: str) -> Options:
    """Returns options with the latency model of the formulation."""
    return Options(features=features, formulation=formulation, latency_model=LATENCY_MODEL_OF[formulation])


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    """Draws one or two chained tasks of two variants, with a handful of configurations, on one GPU."""
    slo = Slo(draw(st.integers(30, 150)), accuracy=draw(st.sampled_from([0.7, 0.81, 0.9])))
    g = chain(draw(st.integers(1, 2)), variant_count=2, slo=slo)
    rows = []
    for name in g.tasks:
        shapes = draw(
            st.lists(
                st.tuples(st.sampled_from(["1g", "3g", "7g"]), st.sampled_from([1, 4, 5]), st.sampled_from([1, 4])),
                min_size=1,
                max_size=3,
                unique=True,
            )
        )
        for variant, (slice_, instances, batch) in itertools.product(("v0", "v1"), shapes):
            speed = draw(st.integers(20, 200)), draw(st.integers(2, 40))
            rows.append(
                row(name, variant, slice_=slice_, instances=instances, batch=batch, rps=speed[0], p95_ms=speed[1])
            )
    return problem(g, rows, demand_rps=draw(st.integers(5, 250)))


def least_slices(p: Problem, options: Options) -> int | None:
    """Returns the least slices by trying every set of replicas that fits a GPU; None if none is feasible."""
    (workload,) = p.workloads
    rows = [r for r in p.profiles[workload.graph.name].rows() if may_be_used(workload.graph, r, options)]
    found = [
        slices
        for counts in replica_counts(rows, lambda taken: fits(taken, options))
        if carries(workload.graph, workload.demand_rps, dict(zip(rows, counts, strict=True)), options)
        for slices in [sum(n * size(r) for r, n in zip(rows, counts, strict=True))]
    ]
    return min(found, default=None)


def size(r: ProfileRow) -> int:
    return CPU.profiles[r.key.slice].compute_slices


def may_be_used(g: TaskGraph, r: ProfileRow, options: Options) -> bool:
    letters = options.features.replace("S", "MP")
    n, relative = len(g.tasks), {"v0": 1.0, "v1": 0.9}[r.key.variant]
    return (
        ("A" in options.features or r.key.variant == "v0")
        and ("M" in letters or r.key.slice == "7g")
        and ("P" in letters or r.key.instances == 1)
        and (
            "T" in options.features
            or (2 * r.latency_p95_ms <= g.slo.latency_ms / n and relative >= g.slo.accuracy ** (1 / n) - 1e-12)
        )
        and (options.formulation == "exact" or r.key.instances <= 4)
    )


def fits(taken: Counter[str], options: Options) -> bool:
    if options.formulation == "paper":
        return sum(n * CPU.profiles[kind].compute_slices for kind, n in taken.items()) <= 7
    return any(taken <= cut for cut in CUTS)


def carries(g: TaskGraph, demand_rps: float, counts: Mapping[ProfileRow, int], options: Options) -> bool:
    used = {r: n for r, n in counts.items() if n}
    latency, accuracy = 0.0, 1.0
    for name in g.tasks:
        own = {r: n for r, n in used.items() if r.key.task == name}
        part = 1.0 if options.formulation == "paper" else options.utilisation
        if not own or part * sum(n * r.throughput_rps for r, n in own.items()) < demand_rps - 1e-9:
            return False
        latency += max(2 * r.latency_p95_ms for r in own)
        accuracy *= min({"v0": 1.0, "v1": 0.9}[r.key.variant] for r in own)
    return latency <= g.slo.latency_ms + 1e-9 and accuracy >= g.slo.accuracy - 1e-9


@pytest.mark.slow
@both
@given(p=small_problems(), features=st.sampled_from(SUBSETS))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_least_slices_agree_with_exhaustive_search(
    p: Problem, features: str, formulation: Formulation, solvers: SolverFactory
) -> None:
    options = replace(TWO_P95, features=features, formulation=formulation)
    best = least_slices(p, options)
    event("feasible" if best else "infeasible")
    if best is None:
        with pytest.raises(InfeasibleError) as caught:
            allot(p, options, solvers=solvers)
        assert caught.value.reasons and caught.value.hint
    else:
        assert allot(p, options, solvers=solvers).slices == best


def larger_problem() -> Problem:
    g = chain(2, variant_count=2, slo=Slo(100.0, accuracy=0.75))
    rows = [r for t in g.tasks for v, ms in (("v0", 12.0), ("v1", 5.0)) for r in grid(t, v, ms, instances=[1, 2])]
    return problem(g, rows, demand_rps=20.0, gpus=3)


@pytest.fixture(scope="module")
def largest_plan(solvers: SolverFactory) -> LargestPlan:
    """Function that makes the largest plan of a formulation and a set of features, each once."""
    return cache(
        lambda formulation, features: make_largest_plan(larger_problem(), usual(formulation, features), solvers=solvers)
    )


@pytest.mark.slow
@both
@every_subset
def test_the_largest_plan_is_valid(features: str, formulation: Formulation, largest_plan: LargestPlan) -> None:
    p, plan = larger_problem(), largest_plan(formulation, features)
    at = replace(p, workloads=(replace(p.workloads[0], demand_rps=plan.graphs["chain"].demand_rps),))
    assert (plan.features, plan.formulation) == (features, formulation)
    assert violations(plan, at, usual(formulation, features)) == ()


@pytest.mark.slow
@both
def test_an_additional_feature_never_lowers_the_largest_demand(
    formulation: Formulation, largest_plan: LargestPlan, solvers: SolverFactory
) -> None:
    def demand(features: str) -> float:
        if formulation == "paper":
            # The greedy placement may fail at the largest demand, so the plan may have a lower one.
            return largest_demand(larger_problem(), usual("paper", features), solvers=solvers).rps["chain"]
        return largest_plan(formulation, features).graphs["chain"].demand_rps

    largest = {features: demand(features) for features in SUBSETS}
    for fewer, more in itertools.permutations(SUBSETS, 2):
        if set(fewer.replace("S", "MP")) < set(more.replace("S", "MP")):
            assert largest[fewer] <= largest[more] * 1.001
    assert largest[""] < largest["AST"]


def forked() -> TaskGraph:
    """a > b > d, and c alone: paths of different lengths."""
    g = diamond(slo=Slo(300.0, accuracy=0.75))
    a, b, c, d = (g.tasks[name] for name in "abcd")
    tasks = (a, b, replace(c, inputs=a.inputs), replace(d, inputs={"LEFT": d.inputs["LEFT"]}))
    return replace(g, tasks={t.name: t for t in tasks})


@both
def test_without_t_budgets_are_even_parts_of_the_longest_path(formulation: Formulation, solvers: SolverFactory) -> None:
    options = replace(TWO_P95, features="AS", formulation=formulation)
    g = forked()
    p = problem(g, [row(t, "v0", p95_ms=50.0 if t == "a" else 5.0) for t in g.tasks])
    planned = make_plan(p, options, solvers=solvers).graphs["diamond"]
    assert {name: task.budget_ms for name, task in planned.tasks.items()} == pytest.approx(
        {"a": 100.0, "b": 100.0, "c": 300.0, "d": 100.0}
    )


def test_feature_t_makes_a_problem_feasible(solvers: SolverFactory) -> None:
    g = forked()
    p = problem(g, [row(t, "v0", p95_ms=51.0 if t == "a" else 5.0) for t in g.tasks])
    assert make_plan(p, TWO_P95, solvers=solvers).graphs["diamond"].tasks["a"].budget_ms > 102.0
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, replace(TWO_P95, features="AS"), solvers=solvers)
    assert caught.value.reasons == (
        "diamond: without budgets over the task graph (T) task a gets 100 ms and an accuracy of 0.9086: "
        "the fastest takes 102 ms",
    )


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ("APT", "without MIG slices (M, a part of S)"),
        ("AMT", "without several instances in a slice (P, a part of S)"),
        ("ST", "without accuracy scaling (A)"),
    ],
)
def test_the_reason_names_the_missing_feature(features: str, reason: str, solvers: SolverFactory) -> None:
    p = problem(chain(1, variant_count=2), [row("t0", "v1", slice_="1g", instances=2)])
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, Options(features=features), solvers=solvers)
    assert reason in caught.value.reasons[0]


def test_the_paper_uses_at_most_four_instances_at_full_throughput(solvers: SolverFactory) -> None:
    p = problem(chain(1), [row("t0", "v0", instances=k, rps=20.0 * k) for k in (1, 4, 5)])
    assert {c.instances for c in allot(p, PAPER, solvers=solvers).counts} <= {1, 4}
    p = problem(chain(1), [row("t0", "v0", rps=100.0)])
    assert [largest_demand(p, how, solvers=solvers).rps["chain"] for how in (TWO_P95, PAPER)] == (
        pytest.approx([7 * 80.0, 7 * 100.0], rel=1e-3)
    )


def crowded(tasks: int = 3) -> Problem:
    """Two 3g and a 1g take seven compute slices, but nine memory slices of eight."""
    slices = ("3g", "3g", "1g")[:tasks]
    rows = [row(f"t{i}", "v0", slice_=kind, rps=100.0) for i, kind in enumerate(slices)]
    return problem(chain(tasks), rows, demand_rps=50.0)


def test_ideal_packing_counts_slices_that_no_layout_has(solvers: SolverFactory) -> None:
    assert allot(crowded(), PAPER, solvers=solvers).slices == 7
    with pytest.raises(InfeasibleError):
        allot(crowded(), solvers=solvers)
    with pytest.raises(UnplacedError) as caught:
        make_plan(crowded(), PAPER, solvers=solvers)
    assert caught.value.reasons == (
        "the cluster has the 7 compute slices that the paper's formulation needs, but its greedy placement finds no "
        "place for 1 of 3 replicas, 1 compute slices: 1 of chain/t2 v0 on 1g",
    )
    with pytest.raises(UnplacedError):
        make_largest_plan(crowded(), PAPER, solvers=solvers)


def test_the_demand_is_lowered_until_the_greedy_placement_succeeds(solvers: SolverFactory) -> None:
    """Three 3g and five 1g carry 250 requests/s on 14 compute slices; beside three 3g two GPUs have room for four."""
    rows = [row("t0", "v0", slice_="3g", rps=100.0), row("t1", "v0", slice_="1g", rps=50.0)]
    p = problem(chain(2), rows, demand_rps=10.0, gpus=2)
    ideal = largest_demand(p, PAPER, solvers=solvers).rps["chain"]
    placed = make_largest_plan(p, PAPER, solvers=solvers).graphs["chain"].demand_rps
    assert ideal == pytest.approx(250.0, rel=1e-3)
    assert 250.0 * 50 / 64 <= placed <= 200.0
