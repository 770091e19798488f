"""Tests of mean accuracy, against exhaustive search on small problems and against plans that keep it as a floor."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.graph.model import Slo, TaskGraph, Variant, Workload
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import accuracy_budget, available
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LatencyModel, Multiplicities, Options, Problem
from jigsaw_triton.planner.formulation.mixture import EXCESS, MOST_BRACKETS, mean_loss, mean_weights
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.supply import supply
from jigsaw_triton.planner.search.solve import (
    SolverFactory,
    find_plan,
    has_plan,
    largest_demand,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.solver.program import Draft, Program
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverProcess
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow
from tests.examples import costly
from tests.fakes.graphs import VECTORS, chain, graph, task
from tests.fakes.problems import LONG, TWO_P95, cluster, docread_problem, problem, row
from tests.fakes.replicas import replica_counts, within
from tests.planner.ideal import fewest_slices
from tests.planner.search import test_solve as any_shape
from tests.planner.test_brute_force import CPU, Uses, problems, uses_by, ways_to_cut, within_slo

pytestmark = pytest.mark.slow

FEW = costly(6)
"""Settings of tests with varying rows, which use `TWO_P95`: with `queue` the time limit often precedes the proof."""

EITHER = st.sampled_from([LONG, replace(TWO_P95, time_limit_s=LONG.time_limit_s)])
"""Options with either latency model; with `TWO_P95` a configuration has one latency, which is much faster."""


def on_average(p: Problem, accuracy: float | None = None) -> Problem:
    """The problem with mean accuracy."""
    return replace(p, workloads=tuple(_on_average(w, accuracy) for w in p.workloads))


def _on_average(workload: Workload, accuracy: float | None) -> Workload:
    slo = replace(workload.graph.slo, accuracy_mode="mean", accuracy=accuracy or workload.graph.slo.accuracy)
    return replace(workload, graph=replace(workload.graph, slo=slo))


def least_by_trying(p: Problem, accuracy: float, allowed: Uses) -> float:
    """The fewest compute slices of one GPU that keep a mean accuracy; infinite if none do."""
    (workload,) = p.workloads
    rows = p.profiles[workload.graph.name].rows()
    least = math.inf
    for counts in replica_counts(rows, within(ways_to_cut(p))):
        used = {r: n for r, n in zip(rows, counts, strict=True) if n}
        slices = sum(n * CPU.profiles[r.key.slice].compute_slices for r, n in used.items())
        if slices < least and best_mean(workload.graph, workload.demand_rps, used, allowed) >= accuracy:
            least = slices
    return least


def best_mean(g: TaskGraph, demand: float, used: Mapping[ProfileRow, int], allowed: Uses) -> float:
    """The greatest mean accuracy with which these replicas carry the demand within the latency; 0 if they cannot."""
    return max((mean_if_carried(g, demand, usable) for usable in within_slo(g, used, allowed)), default=0.0)


def mean_if_carried(g: TaskGraph, demand: float, usable: Mapping[ProfileRow, float]) -> float:
    """The greatest mean accuracy with these multiples of the profiled throughputs."""
    carried = {
        t.name: {
            v.name: sum(
                n * r.throughput_rps for r, n in usable.items() if (r.key.task, r.key.variant) == (t.name, v.name)
            )
            for v in t.variants
        }
        for t in g.tasks.values()
    }
    best = 0.0
    for good in good_shares(g, demand, carried):
        mean, rate = 1.0, demand
        for t in g.tasks.values():
            own = carried[t.name]
            share = good if t.name == "first" else min(1.0, own["good"] / rate)
            if (1 - share) * rate > own["light"] + 1e-9 or share * rate > own["good"] + 1e-9:
                mean = 0.0
            mean *= share + (1 - share) * t.variant("light").accuracy / t.best_accuracy
            if any(other.for_each is not None for other in g.tasks.values()):
                rate *= sum(p * t.variant(v).yields.get("Y", 1.0) for v, p in (("good", share), ("light", 1 - share)))
        best = max(best, mean)
    return best


def good_shares(g: TaskGraph, demand: float, carried: Mapping[str, Mapping[str, float]]) -> Iterator[float]:
    """Shares of the first task's good variant: the greatest, and a grid of all if its rows matter."""
    most = min(1.0, carried["first"]["good"] / demand)
    least = max(0.0, 1 - carried["first"]["light"] / demand)
    yield most
    if any(t.for_each is not None for t in g.tasks.values()) and least < most:
        yield from (least + (most - least) * i / 500 for i in range(500))


@pytest.mark.slow
@pytest.mark.parametrize("model", LATENCY_MODELS)
@given(p=problems())
@costly(40)
def test_the_planner_agrees_with_exhaustive_search(p: Problem, model: LatencyModel, solvers: SolverFactory) -> None:
    p, allowed = on_average(p), uses_by(model, p)
    (workload,) = p.workloads
    accuracy, too_much = workload.graph.slo.accuracy, 1e-4
    first = workload.graph.tasks["first"]
    if workload.graph.fans_out:
        calls = [v.yields["Y"] for v in first.variants]
        too_much += excess(min(calls) / max(calls)) * accuracy_budget(workload.graph)
    found = find_plan(p, Options(latency_model=model), solvers=solvers)
    slices = found.slices_used if found else math.inf
    event("infeasible" if found is None else "mixed" if mixed(found) else "not mixed")
    strict = min(1.0, accuracy * math.exp(too_much))
    assert least_by_trying(p, accuracy - 1e-5, allowed) <= slices <= least_by_trying(p, strict, allowed)


def excess(least: float) -> float:
    """Share of a task's allowed loss that is required too much if its calls are at least this share of the most."""
    return min(1 - least, max(EXCESS, (1 - least) / MOST_BRACKETS))


def mixed(plan: Plan) -> bool:
    return any(len(mix) > 1 for g in plan.graphs.values() for mix in g.mix.values())


@pytest.mark.slow
@given(p=any_shape.problems(), which=st.sampled_from(["one", "all"]), options=EITHER)
@costly(8)
def test_a_mean_never_takes_more_than_a_floor_and_the_plan_is_valid(
    p: Problem, which: str, options: Options, solvers: SolverFactory
) -> None:
    averaged = on_average(p)
    if which == "one":
        averaged = replace(averaged, workloads=(averaged.workloads[0], *p.workloads[1:]))
    floor, mean = (find_plan(problem, options, solvers=solvers) for problem in (p, averaged))
    event("planned" if mean else "infeasible")
    assert has_plan(averaged, options, solvers=solvers) is (mean is not None)
    if mean is not None:
        assert violations(mean, averaged, options) == ()
        again = make_plan(replace(averaged, running=mean), options, solvers=solvers)
        assert any_shape.untimed(again) == any_shape.untimed(mean)
    if floor is not None:
        assert mean is not None
        # On a busy machine, the time limit may precede the proof.
        assert mean.solver.status != "optimal" or (mean.slices_used, mean.gpus_used) <= (
            floor.slices_used,
            floor.gpus_used,
        )


@pytest.mark.slow
@given(p=any_shape.problems(), which=st.integers(0, 10**6), options=EITHER)
@costly(6)
def test_the_lower_bounds_hold_for_a_mean(p: Problem, which: int, options: Options, highs: SolverProcess) -> None:
    p = on_average(p).prepared()
    workload = p.workloads[0]
    name = workload.graph.name
    found = worthwhile(workload.graph, available(workload.graph, p.profiles[name], p.boards, options))
    if not all(found.values()):
        return
    bounds = least_slices(workload, found)
    supplies = [supply(p.cluster, b, {c.slice for own in found.values() for c in own}) for b in p.boards]
    every = sorted(c for own in found.values() for c in own)
    for using in (None, every[which % len(every)]):
        ideal = allocation([workload], {name: found}, supplies, "ideal")
        assert (bounds.least if using is None else bounds.using(1e9)[using]) <= fewest_slices(
            ideal, using, highs
        ) + 1e-6


@pytest.mark.slow
@given(demand=st.integers(1, 300), accuracy=st.sampled_from([0.7, 0.85, 0.9, 0.95]))
@FEW
def test_a_mean_takes_no_more_than_a_floor_if_rows_vary(demand: int, accuracy: float, solvers: SolverFactory) -> None:
    p = docread_problem(demand, slo=Slo(400.0, accuracy=accuracy), batches=[1, 8])
    floor = find_plan(p, TWO_P95, solvers=solvers)
    if floor is not None:
        mean = make_plan(on_average(p), TWO_P95, solvers=solvers)
        assert (mean.slices_used, mean.gpus_used) <= (floor.slices_used, floor.gpus_used)


def test_both_solvers_find_the_same_number_of_slices(solvers: SolverFactory) -> None:
    plans = [make_plan(halves(0.9), replace(TWO_P95, solver=s), solvers=solvers) for s in ("highs", "cbc")]
    assert [plan.solver.name for plan in plans] == ["HiGHS", "CBC"]
    floor = make_plan(on_floor(halves(0.9)), TWO_P95, solvers=solvers)
    assert plans[0].slices_used == plans[1].slices_used < floor.slices_used


@pytest.mark.slow
@given(demand=st.integers(1, 300), accuracy=st.sampled_from([0.7, 0.85, 0.95]), more=st.floats(0.8, 1.0))
@FEW
def test_a_looser_accuracy_is_never_worse(demand: int, accuracy: float, more: float, solvers: SolverFactory) -> None:
    tight, loose = (
        find_plan(on_average(docread_problem(demand, batches=[1, 8]), a), TWO_P95, solvers=solvers)
        for a in (accuracy, accuracy * more)
    )
    if tight is not None:
        assert loose is not None
        # The excess of the brackets depends on the SLO.
        assert loose.slices_used <= tight.slices_used + 1


def halves(accuracy: float, demand_rps: float = 240.0) -> Problem:
    """One task with a good variant at 40 calls/s a slice, and a light one of accuracy 0.8 at four times as many."""
    g = chain(1, slo=Slo(1000.0, accuracy=accuracy, accuracy_mode="mean"))
    variants = (Variant("good", 1.0, "emulated"), Variant("light", 0.8, "emulated"))
    g = replace(g, tasks={"t0": replace(g.tasks["t0"], variants=variants)})
    return problem(g, [row("t0", "good", rps=50.0), row("t0", "light", rps=200.0)], demand_rps=demand_rps)


def test_variants_below_the_accuracy_take_a_share(solvers: SolverFactory) -> None:
    plan = make_plan(halves(0.9), TWO_P95, solvers=solvers)
    assert plan.slices_used == 3 + 1
    assert plan.graphs["chain"].mix["t0"] == pytest.approx({"good": 0.5, "light": 0.5}, abs=1e-4)
    assert plan.graphs["chain"].accuracy >= 0.9 - 1e-5
    assert make_plan(halves(1.0), TWO_P95, solvers=solvers).graphs["chain"].mix == {"t0": {"good": 1.0}}
    assert make_plan(halves(0.8), TWO_P95, solvers=solvers).slices_used == 2


class OutOfTime:
    """A solver that finds no solution in time for programs with mean accuracy."""

    def __init__(self, solver: Solver) -> None:
        self.name, self._solver = solver.name, solver

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        has_mean = any(not c.integer and c.upper is not None for c in program.columns)
        if has_mean and any(c.integer for c in program.columns):
            return Outcome("unknown", (), ())
        return self._solver.solve(program, time_limit_s)


def test_out_of_time_the_plan_keeps_the_accuracy_as_a_floor(highs: SolverProcess) -> None:
    plan = make_plan(halves(0.9), TWO_P95, solvers=lambda _: nullcontext(OutOfTime(highs)))
    assert (plan.slices_used, plan.solver.status) == (6, "feasible")
    # The lower bound is that of the mean.
    assert plan.solver.gap == pytest.approx(2 / 6)


def test_out_of_time_several_graphs_still_get_a_plan(highs: SolverProcess) -> None:
    p = halves(0.9)
    (workload,) = p.workloads
    other = replace(workload, graph=replace(workload.graph, name="other"))
    tables = {**p.profiles, "other": p.profiles[workload.graph.name]}
    p = replace(p, workloads=(workload, other), profiles=tables, cluster=cluster(2))
    plan = make_plan(p, TWO_P95, solvers=lambda _: nullcontext(OutOfTime(highs)))
    assert (plan.slices_used, plan.solver.status) == (12, "feasible")


def test_capacity_uses_the_shares_that_keep_the_accuracy(solvers: SolverFactory) -> None:
    plan = make_largest_plan(halves(0.9), TWO_P95, solvers=solvers)
    # Five slices of the good variant at 40 calls/s, and as many calls of the light one on the other two.
    assert plan.graphs["chain"].capacity_rps == pytest.approx(400.0, rel=1e-3)
    assert plan.graphs["chain"].accuracy >= 0.9 - 1e-5
    assert largest_demand(halves(0.9), TWO_P95, solvers=solvers).proven


def rows_by_variant(light: float = 1.0) -> TaskGraph:
    first = task(
        "first",
        {"X": "inputs.X"},
        outputs={"Y": VECTORS},
        of=[
            Variant("good", 1.0, "emulated", yields={"Y": 4.0}),
            Variant("light", 0.9, "emulated", yields={"Y": light}),
        ],
    )
    variants = [Variant("good", 1.0, "emulated"), Variant("light", 0.8, "emulated")]
    second = task("second", {"X": "first.Y"}, of=variants, for_each="first.Y")
    return graph([first, second], {"Y": "second.Y"}, slo=Slo(1000.0, accuracy=0.9, accuracy_mode="mean"))


@pytest.mark.parametrize("accuracy", [0.8, 0.79, 0.75])
def test_a_variant_alone_has_no_excess_if_rows_vary(accuracy: float, solvers: SolverFactory) -> None:
    g = rows_by_variant(3.0)
    g = replace(g, slo=replace(g.slo, accuracy=accuracy))
    calls = {("first", "good"): 20.0, ("first", "light"): 20.0, ("second", "good"): 10.0, ("second", "light"): 40.0}
    p = problem(g, [row(*which, rps=rps / 0.8) for which, rps in calls.items()], demand_rps=10, gpus=2)
    # The first task's good variant yields 40 rows a second, which fill a slice of the second task's light variant.
    slices = [make_plan(one, TWO_P95, solvers=solvers).slices_used for one in (p, on_floor(p))]
    assert slices == [2, 2]


@given(shares=st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)), light=st.sampled_from([0.5, 2.0, 4.0]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_upper_bound_on_the_loss_of_a_mixture_is_tight(
    shares: tuple[float, float], light: float, highs: SolverProcess
) -> None:
    g = rows_by_variant(light)
    draft = Draft()
    columns = {name: {"good": draft.real(), "light": draft.real()} for name in g.tasks}
    calls = {"first": 1.0, "second": 4.0 * shares[0] + light * (1 - shares[0])}
    weights = mean_weights(draft, g, columns, {"first": 1.0, "second": 4.0})
    mixes = {t: {"good": s, "light": 1 - s} for t, s in zip(g.tasks, shares, strict=True)}
    for t, by_variant in columns.items():
        for v, column in by_variant.items():
            draft.equal(calls[t] * mixes[t][v], [(column, 1.0)])
    budget = accuracy_budget(g)
    exact = {t: mean_loss(g, t, mix) for t, mix in mixes.items()}
    most = {"first": exact["first"] + 1e-4, "second": exact["second"] + 1e-4 + excess(light / 4.0) * budget}
    if max(most.values()) > budget:
        return
    for t, weight in weights.items():
        alone = Draft(list(draft.columns), list(draft.rows))
        alone.minimise(weight.terms, gap=1e-9)
        least = highs.solve(alone.program(), 10.0).stages[0].value + weight.least
        assert exact[t] - 1e-6 <= least <= most[t]


@pytest.mark.slow
def test_a_task_that_may_never_be_called_keeps_a_floor(solvers: SolverFactory) -> None:
    p = on_average(docread_problem(20), 0.9)
    yields = {("detect", v, "CROPS"): 0.0 for v in ("tiny", "small", "base")}
    p = replace(p, multiplicities={"docread": Multiplicities(yields=yields)})
    plan = make_plan(p, solvers=solvers)
    assert violations(plan, p, Options()) == ()


def test_without_graph_informed_budgets_each_variant_keeps_its_even_part(solvers: SolverFactory) -> None:
    p, options = on_average(docread_problem(60), 0.9), Options(features="AS")
    plan = make_plan(p, options, solvers=solvers)
    assert violations(plan, p, options) == ()
    floor = make_plan(on_floor(p), options, solvers=solvers)
    assert plan.slices_used == floor.slices_used


def on_floor(p: Problem) -> Problem:
    (workload,) = p.workloads
    slo = replace(workload.graph.slo, accuracy_mode="floor")
    return replace(p, workloads=(replace(workload, graph=replace(workload.graph, slo=slo)),))


def test_a_mean_accuracy_is_kept_with_shared_slices(solvers: SolverFactory) -> None:
    p = on_average(docread_problem(0.5), 0.9)
    plan = make_plan(p, Options(share=True), solvers=solvers)
    assert violations(plan, p, Options(share=True)) == ()
    assert plan.slices_used == 1


def test_the_validator_finds_a_false_mean(solvers: SolverFactory) -> None:
    p = halves(0.9)
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert any("the accuracy along a path is" in v for v in violations(plan, on_average(p, 0.95), TWO_P95))
    false = replace(plan, graphs={"chain": replace(plan.graphs["chain"], accuracy=0.99)})
    assert any("the plan says an accuracy of 0.99" in v for v in violations(false, p, TWO_P95))
