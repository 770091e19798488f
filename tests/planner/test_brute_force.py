"""Small problems, compared with exhaustive search over all sets of replicas that fit a GPU."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import SLICES, Placement
from jigsaw_triton.graph.measured import Combination
from jigsaw_triton.graph.model import Slo, TaskGraph, Variant
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LatencyModel, Options, Problem, ReplicaRange
from jigsaw_triton.planner.latency.latency import ANY_NUMBER, Use, uses
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import VECTORS, graph, task
from tests.fakes.problems import problem, row
from tests.fakes.replicas import replica_counts, within

CPU = board("cpu")
FOREIGN = ((), (Placement(1, "1g"),), (Placement(2, "2g"), Placement(6, "1g")), (Placement(4, "3g"),))
"""MIG instances of others on the GPU."""

ACCURACY_GAP = 1e-3
"""Tolerance of the planner in the sum of shares times logarithms."""


@st.composite
def profiles(draw: st.DrawFn, tasks: Sequence[str], kinds: Sequence[str]) -> ProfileTable:
    rows = []
    for name in tasks:
        for variant in ("good", "light"):
            # At least one row of a variant that always meets the accuracy; otherwise most problems are infeasible.
            count = draw(st.integers(1 if variant == "good" else 0, 2))
            for batch in range(1, count + 1):
                rows.append(
                    row(
                        name,
                        variant,
                        slice_=draw(st.sampled_from(kinds)),
                        batch=batch,
                        p95_ms=draw(st.integers(2, 40)),
                        rps=draw(st.integers(20, 200)),
                    )
                )
    return ProfileTable(rows)


@st.composite
def measured_pairs(draw: st.DrawFn) -> tuple[Combination, ...]:
    """Draws an accuracy of each pair of variants, in a unit of its own and in any order."""
    return tuple(
        Combination({"first": one, "second": other}, draw(st.sampled_from([30.0, 40.0, 50.0, 62.0, 70.0, 80.0])))
        for one in ("good", "light")
        for other in ("good", "light")
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draws one task, or two chained ones, with or without fan-out; at most 4 configurations each; one GPU."""
    uncut = draw(st.sampled_from(["", "", "", "MIG is off"]))
    # A GPU without MIG holds one task.
    shape = "one" if uncut else draw(st.sampled_from(["one", "chain", "rows"]))
    kinds = ("1g", "7g") if uncut else ("1g", "2g", "3g", "4g")
    light = draw(st.sampled_from([0.7, 0.9, 0.95]))
    first = task(
        "first",
        {"X": "inputs.X"},
        outputs={"Y": VECTORS},
        of=[
            Variant("good", 1.0, "emulated", yields={"Y": 2.0}),
            Variant("light", light, "emulated", yields={"Y": draw(st.sampled_from([1.0, 1.5, 3.0]))}),
        ],
    )
    second = task(
        "second",
        {"X": "first.Y"},
        of=[Variant("good", 80.0, "emulated"), Variant("light", 80 * light, "emulated")],
        for_each="first.Y" if shape == "rows" else None,
    )
    tasks = [first] if shape == "one" else [first, second]
    slo = Slo(draw(st.integers(20, 200)), accuracy=draw(st.sampled_from([0.45, 0.64, 0.85, 1.0])))
    g = graph(tasks, {"Y": f"{tasks[-1].name}.Y"}, slo=slo)
    if len(tasks) == 2 and draw(st.booleans()):
        g = replace(g, combinations=draw(measured_pairs()))
    p = problem(g, draw(profiles(list(g.tasks), kinds)), demand_rps=draw(st.integers(5, 250)))
    (gpu,) = p.cluster.gpus
    gpu = replace(gpu, foreign=() if uncut else draw(st.sampled_from(FOREIGN)), uncut=uncut)
    return replace(p, cluster=replace(p.cluster, gpus=(gpu,)))


@dataclass(frozen=True)
class Best:
    slices: int
    loss: float


Uses = Mapping[ProfileRow, Sequence[Use]]


def uses_by(model: LatencyModel, p: Problem) -> Uses:
    """Returns the utilisations that a replica may have, and the latency of its task at each."""
    (workload,) = p.workloads
    g, table = workload.graph, p.profiles[workload.graph.name]
    if model == "2p95":
        return {r: [Use(0.8, two_p95_ms(g, r), ANY_NUMBER)] for r in table.rows()}
    found = uses(g, table.rows(), table, Options(latency_model=model), [r.key for r in table.rows()])
    return {r: found[r.key] for r in table.rows()}


def two_p95_ms(g: TaskGraph, r: ProfileRow) -> float:
    iterates = g.tasks[r.key.task].for_each is not None
    at_once = max(v.yields["Y"] for v in g.tasks["first"].variants) if iterates else 1.0
    return r.latency_p95_ms * (1 + math.ceil(at_once / (r.key.batch * r.key.instances)))


def brute_force(p: Problem, allowed: Uses, *, accurate: bool = False) -> Best | None:
    """Returns the least compute slices, and the least loss of accuracy with these (only without fan-out).

    Args:
        p: Problem.
        allowed: Utilisations that a replica may have.
        accurate: True for the least loss instead, and the least slices with it.
    """

    def cost(plan: Best) -> tuple[float, float]:
        return (round(plan.loss, 9), plan.slices) if accurate else (plan.slices, plan.loss)

    (workload,) = p.workloads
    rows = p.profiles[workload.graph.name].rows()
    cuts = ways_to_cut(p)
    best: Best | None = None
    for counts in replica_counts(rows, within(cuts)):
        used = {r: n for r, n in zip(rows, counts, strict=True) if n}
        slices = sum(n * CPU.profiles[r.key.slice].compute_slices for r, n in used.items())
        if best is not None and slices > best.slices and not accurate:
            continue
        loss = least_loss(workload.graph, workload.demand_rps, used, allowed)
        if loss is not None and (best is None or cost(Best(slices, loss)) < cost(best)):
            best = Best(slices, loss)
    return best


def ways_to_cut(p: Problem) -> list[Counter[str]]:
    """Returns the sets of slices that its GPU can have at once."""
    (gpu,) = p.cluster.gpus
    return [Counter(m) for m in maximal_multisets(CPU, ("7g",) if gpu.uncut else SLICES, around=gpu.foreign)]


def least_loss(g: TaskGraph, demand: float, used: Mapping[ProfileRow, int], allowed: Uses) -> float | None:
    """Returns the least loss with which these replicas carry the demand; None if they cannot within the SLO."""
    found = [loss_if_carried(g, demand, usable) for usable in within_slo(g, used, allowed)]
    return min((loss for loss in found if loss is not None), default=None)


def within_slo(g: TaskGraph, used: Mapping[ProfileRow, int], allowed: Uses) -> Iterator[dict[ProfileRow, float]]:
    """Yields the multiples of their throughputs that replicas may serve, for each latency of a first task.

    A second task has the rest of the SLO. Each replica is as busy as its latency permits, and at least slightly.
    """
    own = [{r: n for r, n in used.items() if r.key.task == name} for name in g.tasks]
    for ranges in itertools.product(*(ranges_of(of, allowed) for of in own)):
        at = [
            {r: [use for use in allowed[r] if use.replica_range == among] for r in of}
            for of, among in zip(own, ranges, strict=True)
        ]
        for given_ms in {use.latency_ms for of in at[0].values() for use in of}:
            budgets_ms = (given_ms, g.slo.latency_ms - given_ms)[: len(own)]
            usable = {
                r: used[r] * max((use.utilisation for use in of if use.latency_ms <= most_ms + 1e-9), default=0.0)
                for most_ms, task in zip(budgets_ms, at, strict=True)
                for r, of in task.items()
            }
            if given_ms <= g.slo.latency_ms + 1e-9 and all(usable.values()):
                yield usable


def ranges_of(own: Mapping[ProfileRow, int], allowed: Uses) -> set[ReplicaRange]:
    """The ranges of numbers of replicas that these may be counted to."""
    return {
        use.replica_range
        for r in own
        for use in allowed[r]
        if use.replica_range[0] <= sum(own.values()) <= use.replica_range[1]
    }


def loss_if_carried(g: TaskGraph, demand: float, usable: Mapping[ProfileRow, float]) -> float | None:
    """Returns the least loss with which these multiples of throughputs carry the demand; None if they cannot."""
    worst, rate, loss = 1.0, demand, 0.0
    for t in g.tasks.values():
        own = {r: n for r, n in usable.items() if r.key.task == t.name}
        worst *= min(t.variant(r.key.variant).accuracy for r in own) / t.best_accuracy
        carried = {
            v.name: sum(n * r.throughput_rps for r, n in own.items() if r.key.variant == v.name) for v in t.variants
        }
        if sum(carried.values()) < rate - 1e-9:
            return None
        iterated = any(other.for_each is not None for other in g.tasks.values())
        # The better variant first; or, if the rate of the next task depends on it, the one with fewer rows.
        first = sorted(t.variants, key=lambda v: v.yields.get("Y", 0.0) if iterated else -v.accuracy)
        flow = filled(carried, rate, [v.name for v in first])
        loss += sum(f / rate * -math.log(t.variant(v).accuracy / t.best_accuracy) for v, f in flow.items())
        if iterated and t.for_each is None:
            rate = sum(f * t.variant(v).yields["Y"] for v, f in flow.items())
    if g.combinations:
        used = {(r.key.task, r.key.variant) for r in usable}
        best = max(c.accuracy for c in g.combinations)
        worst = min(c.accuracy / best for c in g.combinations if c.variants.items() <= used)
    return loss if worst >= g.slo.accuracy - 1e-9 else None


def filled(carried: Mapping[str, float], rate: float, order: Sequence[str]) -> dict[str, float]:
    """Returns the rate of each variant, where each in turn takes as much as it can."""
    flow = {}
    for variant in order:
        flow[variant] = min(rate, carried[variant])
        rate -= flow[variant]
    return flow


def lost(plan: Plan, g: TaskGraph) -> float:
    return sum(
        s.share * -math.log(g.tasks[name].variant(s.variant).accuracy / g.tasks[name].best_accuracy)
        for name, planned in plan.graphs[g.name].tasks.items()
        for s in planned.segments
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", LATENCY_MODELS)
@given(p=problems())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_planner_agrees_with_exhaustive_search(p: Problem, model: LatencyModel, solvers: SolverFactory) -> None:
    best, options = brute_force(p, uses_by(model, p)), Options(latency_model=model)
    event("feasible" if best else "infeasible")
    if best is None:
        try:
            plan = make_plan(p, options, solvers=solvers)
        except InfeasibleError as error:
            assert error.reasons and error.hint
            return
        raise AssertionError(f"a plan of {plan.slices_used} slices where there is none")
    plan = make_plan(p, options, solvers=solvers)
    assert (plan.slices_used, plan.gpus_used, plan.solver.status) == (best.slices, 1, "optimal")
    (workload,) = p.workloads
    # With measured pairs the variants' own accuracies decide no ties.
    if not workload.graph.fans_out and not workload.graph.combinations:
        assert lost(plan, workload.graph) <= best.loss + ACCURACY_GAP + 1e-6
