"""Plans with a price on changes of running MIG instances."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import GpuId, Layout, Placement
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LatencyModel, Options, Problem, with_demand_scaled
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, make_plan
from jigsaw_triton.planner.solver.program import Program
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverProcess
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import TWO_P95, docread_problem, problem, row
from tests.planner.search.test_solve import problems

CPU = board("cpu")
GRAPH = chain(1, variant_count=1)
SPEED = {"1g": 10.0, "2g": 20.0, "3g": 27.0}
PROFILES = ProfileTable(row("t0", "v0", slice_=kind, rps=rps / 0.8) for kind, rps in SPEED.items())
"""Slice -> calls a second that may be planned for a replica on it, with the latency model 2p95."""


def asked(demand_rps: float, before: Places, *, gpus: int = 1) -> Problem:
    return problem(GRAPH, PROFILES, demand_rps=demand_rps, gpus=gpus, running=plan_of(before))


def planned(p: Problem, price: float, solvers: SolverFactory) -> Plan:
    options = replace(TWO_P95, change_price=price)
    plan = make_plan(p, options, solvers=solvers)
    assert violations(plan, p, options) == ()
    assert plan.solver.status == "optimal"
    return plan


def changes(plan: Plan, p: Problem) -> int:
    return sum(change.kind != "add" for change in difference(p.running, plan))


def places(plan: Plan) -> list[str]:
    return [f"{gpu.id.index}:{s.placement}" for gpu in plan.gpus for s in gpu.layout]


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (0.0, ["0:1g@0"]),
        (0.9, ["0:1g@0"]),
        # A change has to save more than it costs.
        (1.0, ["0:1g@0", "0:1g@1", "0:1g@2"]),
        (5.0, ["0:1g@0", "0:1g@1", "0:1g@2"]),
    ],
)
def test_an_unneeded_replica_stays_if_removing_it_costs_more(
    price: float, expected: list[str], solvers: SolverFactory
) -> None:
    p = asked(8, {0: {"1g@0": "t0.v0", "1g@1": "t0.v0", "1g@2": "t0.v0"}})
    assert places(planned(p, price, solvers)) == expected


def test_with_a_price_gpus_are_not_emptied_for_their_own_sake(solvers: SolverFactory) -> None:
    p = asked(18, {0: {"1g@0": "t0.v0"}, 1: {"1g@3": "t0.v0"}}, gpus=2)
    assert planned(p, 0.0, solvers).gpus_used == 1
    assert places(planned(p, 0.01, solvers)) == ["0:1g@0", "1:1g@3"]


def test_a_price_counts_where_running_slices_start(solvers: SolverFactory) -> None:
    # A 2g takes as many slices as two 1g, but running 1g occupy the places where it could start.
    before: Places = {0: {"1g@0": "t0.v0", "1g@2": "t0.v0", "1g@4": "t0.v0"}}
    only_2g = ProfileTable([row("t0", "v0", slice_="2g", rps=20 / 0.8), row("t0", "v0", rps=10 / 0.8)])
    p = replace(asked(48, before), profiles={GRAPH.name: only_2g})
    plan = planned(p, 3.0, solvers)
    assert changes(plan, p) == 0
    assert {"0:1g@0", "0:1g@2", "0:1g@4"} < set(places(plan))
    assert plan.slices_used == 5


def test_running_replicas_stay_though_another_choice_is_as_good(solvers: SolverFactory) -> None:
    worse = row("t0", "v0", batch=2, p95_ms=20.0, rps=10 / 0.8)
    table = ProfileTable([*PROFILES.rows(), worse])
    p = replace(asked(8, {0: {"1g@3": "t0.v0/1/2"}}), profiles={GRAPH.name: table})
    assert changes(planned(p, 0.0, solvers), p) == 1
    assert changes(planned(p, 0.1, solvers), p) == 0


def test_replicas_that_miss_the_slo_go_at_any_price(solvers: SolverFactory) -> None:
    table = ProfileTable([*PROFILES.rows(), row("t0", "v0", batch=8, p95_ms=900.0, rps=10 / 0.8)])
    p = replace(asked(8, {0: {"1g@3": "t0.v0/1/8"}}), profiles={GRAPH.name: table})
    assert changes(planned(p, 100.0, solvers), p) == 1


def test_a_price_has_no_effect_without_a_running_plan(solvers: SolverFactory) -> None:
    p = docread_problem(60)
    with_price, without = (make_plan(p, Options(change_price=x), solvers=solvers) for x in (2.0, 0.0))
    assert with_price.gpus == without.gpus


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_an_invalid_price_is_refused(price: float) -> None:
    with pytest.raises(InputError, match="price"):
        Options(change_price=price).checked()


@pytest.mark.parametrize("options", [Options(share=True), replace(TWO_P95, formulation="paper")])
def test_options_without_a_price_refuse_one(options: Options) -> None:
    with pytest.raises(InputError, match="changes have no price with"):
        replace(options, change_price=1.0).checked()


TWO = ProfileTable(
    row("t0", "v0", slice_=kind, batch=batch, p95_ms=10.0 * batch, rps=rps * scale / 0.8)
    for kind, rps in SPEED.items()
    for batch, scale in ((1, 1.0), (2, 1.4))
)


@st.composite
def running_places(draw: st.DrawFn) -> Places:
    """Some slices of a layout of each of two GPUs, each with a replica."""
    found: dict[int, dict[str, str]] = {}
    for index in range(2):
        layout = draw(st.sampled_from(maximal_layouts(CPU, SPEED)))
        some = [place for place in layout if draw(st.booleans())]
        found[index] = {str(place): f"t0.v0/1/{draw(st.sampled_from([1, 2]))}" for place in some}
    return found


@pytest.mark.slow
@given(before=running_places(), demand=st.integers(5, 150), price=st.sampled_from([0.3, 1.0, 2.5]))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_plan_is_cheaper(before: Places, demand: int, price: float, solvers: SolverFactory) -> None:
    p = replace(asked(demand, before, gpus=2), profiles={GRAPH.name: TWO})
    plan = planned(p, price, solvers)
    found = plan.slices_used + price * changes(plan, p)
    event("changed" if changes(plan, p) else "as it was")
    assert found == pytest.approx(brute_force(p, price), abs=1e-3)


@pytest.mark.slow
@given(p=problems(), growth=st.sampled_from([0.3, 0.8, 1.0, 1.3]), model=st.sampled_from(LATENCY_MODELS))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_plan_is_valid_and_costs_no_more_than_one_without_a_price(
    p: Problem, growth: float, model: LatencyModel, solvers: SolverFactory
) -> None:
    options = Options(latency_model=model)
    running = find_plan(p, options, solvers=solvers)
    if running is None:
        return
    later = replace(with_demand_scaled(p, {w.graph.name for w in p.workloads}, growth), running=running)
    free = find_plan(later, options, solvers=solvers)
    priced = replace(options, change_price=0.7)
    plan = find_plan(later, priced, solvers=solvers)
    assert (plan is None) == (free is None)
    if plan is None or free is None:
        return
    assert violations(plan, later, priced) == ()
    cost, before = (one.slices_used + 0.7 * changes(one, later) for one in (plan, free))
    event("cheaper" if cost < before - 1e-3 else "the same")
    if plan.solver.status == "optimal":
        assert cost <= before + 1e-3
        assert growth != 1.0 or difference(running, plan) == ()


class OutOfTime:
    """Solver that runs out of time on programs with a price on changes.

    Args:
        solver: Solver of all other programs.
        after: Number of programs with a price that it still solves.
    """

    def __init__(self, solver: Solver, after: int) -> None:
        self.name, self._solver, self._after = solver.name, solver, after

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        if any(c.integer for c in program.columns) and not program.objectives[0].integral:
            self._after -= 1
            if self._after < 0:
                return Outcome("unknown", (), ())
        return self._solver.solve(program, time_limit_s)


@pytest.mark.parametrize(("after", "slices", "gap"), [(0, 1, 3 / 4), (1, 3, 2 / 3)])
def test_the_best_plan_so_far_is_returned_when_time_runs_out(
    after: int, slices: int, gap: float, highs: SolverProcess
) -> None:
    p = asked(8, {0: {"1g@0": "t0.v0", "1g@1": "t0.v0", "1g@2": "t0.v0"}})
    plan = make_plan(p, replace(TWO_P95, change_price=1.0), solvers=lambda _: nullcontext(OutOfTime(highs, after)))
    assert (plan.slices_used, plan.solver.status) == (slices, "feasible")
    # At least one slice is needed; with changes of all three running slices, the objective is at most four.
    assert plan.solver.gap == pytest.approx(gap)


def brute_force(p: Problem, price: float) -> float:
    """Returns the least slices and price, by trying everything that two GPUs can hold."""
    (workload,), running = p.workloads, p.running
    assert running is not None
    rows = p.profiles[GRAPH.name].rows()
    there = {gpu.id: {s.placement: s.models[0] for s in gpu.layout} for gpu in running.gpus}
    per_gpu = [fillings(rows, there.get(GpuId("a", index), {})) for index in range(2)]
    occupancy = sum(map(len, there.values()))
    return min(
        slices + other_slices + price * (occupancy - kept - other_kept)
        for (slices, rps), kept in per_gpu[0].items()
        for (other_slices, other_rps), other_kept in per_gpu[1].items()
        if rps + other_rps >= workload.demand_rps - 1e-6
    )


def fillings(rows: Sequence[ProfileRow], there: Mapping[Placement, PlacedModel]) -> dict[tuple[int, float], int]:
    """Returns the most running replicas that can stay, by (compute slices, calls a second) of a GPU."""
    found: dict[tuple[int, float], int] = {}
    for layout in maximal_layouts(CPU, SPEED):
        for slices, rps, kept in filled(layout, rows, there):
            key = (slices, round(rps, 6))
            found[key] = max(found.get(key, 0), kept)
    return found


def filled(
    layout: Layout, rows: Sequence[ProfileRow], there: Mapping[Placement, PlacedModel]
) -> Iterator[tuple[int, float, int]]:
    """Yields every way to fill each slice or leave it empty; equivalent ones once."""
    ways = {(0, 0.0, 0)}
    for place in layout:
        options = [(0, 0.0, 0)]
        for r in rows:
            if r.key.slice == place.slice:
                model = there.get(place)
                stays = model is not None and (model.instances, model.batch) == (r.key.instances, r.key.batch)
                options.append((CPU.profiles[place.slice].compute_slices, 0.8 * r.throughput_rps, int(stays)))
        ways = {(s + a, round(rps + b, 6), k + c) for s, rps, k in ways for a, b, c in options}
    yield from ways
