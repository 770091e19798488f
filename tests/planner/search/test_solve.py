"""Properties of all plans, and failures of solvers."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.gpus.model import Cluster, Placement
from jigsaw_triton.graph.model import Slo, TaskGraph, Workload
from jigsaw_triton.planner.bounds.bounds import Bounds
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.planner.domain.problem import Multiplicities, Options, Problem
from jigsaw_triton.planner.search import fewest_slices, planning
from jigsaw_triton.planner.search.choices import bounds_of
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, has_plan, make_plan
from jigsaw_triton.planner.solver.program import Program, SolverName
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverFailure, SolverHung, SolverProcess, Stage
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.examples import costly
from tests.fakes.graphs import chain, conditional, cropping, diamond, fan_out, nested
from tests.fakes.problems import LONG, TWO_P95, cluster, docread, docread_problem, docread_profiles, grid, problem, row

pytestmark = pytest.mark.slow

T = TypeVar("T")

FEW = costly(6)


def untimed(plan: Plan) -> Plan:
    return replace(plan, solver=replace(plan.solver, seconds=0.0))


def plan_or_none(problem: Problem, solvers: SolverFactory) -> Plan | None:
    try:
        return make_plan(problem, LONG, solvers=solvers)
    except InfeasibleError as error:
        assert error.reasons and error.hint
        return None


@st.composite
def slos(draw: st.DrawFn) -> Slo:
    return Slo(draw(st.integers(30, 500)), accuracy=draw(st.sampled_from([0.6, 0.8, 0.9, 0.97, 1.0])))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draws one or two graphs of any shape on boards of two models with different speeds."""
    makers = draw(
        st.lists(
            st.sampled_from([chain, fan_out, diamond, conditional, nested, cropping]),
            min_size=1,
            max_size=2,
            unique=True,
        )
    )
    graphs: list[TaskGraph] = [make(variant_count=2, slo=draw(slos())) for make in makers]
    # Each problem has few kinds of slices, and all problems together have all: programs with many take far longer.
    kinds = draw(st.sampled_from([("1g", "2g", "7g"), ("1g", "3g", "4g"), ("2g", "3g", "7g"), ("1g", "7g")]))
    tables = {}
    for g in graphs:
        rows = []
        for name, variant in itertools.product(g.tasks, ("v0", "v1")):
            cost = draw(st.integers(2, 30)) * (1.0 if variant == "v0" else 0.4)
            rows += grid(name, variant, cost, slices=kinds, instances=[1], batches=[1, 4])
            rows += grid(name, variant, 0.7 * cost, slices=["1g", "4g"], instances=[1], batches=[2], gpu="A30-24GB")
        tables[g.name] = ProfileTable(rows)
    gpus = cluster(draw(st.integers(1, 2))).gpus + cluster(draw(st.integers(0, 1)), of="A30-24GB", node="b").gpus
    foreign = st.sampled_from([(), (), (Placement(2, "2g"),), (Placement(0, "1g"), Placement(3, "1g"))])
    uncut = st.sampled_from(["", "", "MIG is off"])
    gpus = tuple(
        replace(gpu, uncut=why) if (why := draw(uncut)) else replace(gpu, foreign=draw(foreign)) for gpu in gpus
    )
    workloads = tuple(Workload(g, draw(st.integers(1, 300))) for g in graphs)
    return Problem(workloads, Cluster(gpus), tables)


@pytest.mark.slow
@given(p=problems())
@costly(10)
def test_any_plan_is_valid_and_make_find_and_has_plan_agree(p: Problem, solvers: SolverFactory) -> None:
    plan, found = plan_or_none(p, solvers), find_plan(p, LONG, solvers=solvers)
    event("planned" if plan else "infeasible")
    assert (found and untimed(found)) == (plan and untimed(plan))
    assert has_plan(p, LONG, solvers=solvers) is (plan is not None)
    if plan is not None:
        assert violations(plan, p, Options()) == ()
        assert plan_from_json(plan.to_json(), where="plan.json") == plan
        again = make_plan(replace(p, running=plan), LONG, solvers=solvers)
        assert untimed(again) == untimed(plan)


def occupied(p: Problem, foreign: dict[int, tuple[Placement, ...]]) -> Problem:
    """Returns the problem with MIG instances of others on some GPUs."""
    gpus = (replace(gpu, foreign=foreign.get(gpu.id.index, ())) for gpu in p.cluster.gpus)
    return replace(p, cluster=replace(p.cluster, gpus=tuple(gpus)))


def test_plans_avoid_mig_instances_of_others(solvers: SolverFactory) -> None:
    free = docread_problem(60)
    p = occupied(free, {0: (Placement(1, "1g"), Placement(4, "3g"))})
    plan = make_plan(p, solvers=solvers)
    assert (plan.slices_total, plan.slices_used) == (10, make_plan(free, solvers=solvers).slices_used)
    assert violations(plan, p, Options()) == ()
    assert make_plan(occupied(free, {0: (Placement(0, "7g"),)}), solvers=solvers).gpus[0].id.index == 1


def test_a_gpu_without_mig_is_one_whole_slice(solvers: SolverFactory) -> None:
    free = docread_problem(60)
    uncut, other = (replace(free.cluster.gpus[0], uncut="MIG is off"), free.cluster.gpus[1])
    both = replace(free, cluster=replace(free.cluster, gpus=(uncut, other)))
    # Small slices that fit one GPU are not on the GPU without MIG.
    plan = make_plan(both, solvers=solvers)
    assert plan.slices_used == make_plan(free, solvers=solvers).slices_used
    assert [gpu.id for gpu in plan.gpus] == [other.id]
    # If others use that GPU, only the whole slice is left, and it holds one of the two tasks.
    taken = replace(both, cluster=replace(both.cluster, gpus=(uncut, replace(other, foreign=(Placement(0, "4g"),)))))
    plan = make_plan(taken, solvers=solvers)
    assert violations(plan, taken, Options()) == ()
    layouts = {gpu.id: [placed.placement for placed in gpu.layout] for gpu in plan.gpus}
    whole = uncut.board.whole
    assert layouts.get(uncut.id, [whole]) == [whole]
    alone = replace(both, cluster=replace(both.cluster, gpus=(uncut,)))
    with pytest.raises(InfeasibleError, match="no room for as many replicas as the tasks need"):
        make_plan(alone, solvers=solvers)


def test_mig_instances_of_others_leave_too_little_room(solvers: SolverFactory) -> None:
    p = occupied(docread_problem(60), {0: (Placement(0, "7g"),), 1: (Placement(0, "7g"),)})
    with pytest.raises(InfeasibleError, match="no room for as many replicas as the tasks need") as caught:
        make_plan(p, solvers=solvers)
    assert caught.value.hint == "give it 1 GPU without MIG instances of others, or plan for fewer graphs at once"
    assert has_plan(p, solvers=solvers) is False


@pytest.mark.parametrize("mode", ["floor", "mean"])
def test_mig_instances_of_others_leave_only_slices_that_are_too_slow(
    mode: Literal["floor", "mean"], solvers: SolverFactory
) -> None:
    g = chain(2, slo=Slo(100.0, accuracy=0.9, accuracy_mode=mode))
    rows = [row(t, "v0", slice_=kind, p95_ms=ms) for t in g.tasks for kind, ms in (("1g", 30.0), ("2g", 10.0))]
    # Beside these there is no room for a 2g, and two 1g are too slow.
    p = occupied(problem(g, rows), {0: (Placement(1, "1g"), Placement(3, "1g"), Placement(5, "1g"))})
    with pytest.raises(InfeasibleError, match="no room for as many replicas as the tasks need") as caught:
        make_plan(p, TWO_P95, solvers=solvers)
    (reason,), hint = caught.value.reasons, caught.value.hint
    assert reason.endswith("3 compute slices on 1 GPU would suffice, it has 4 on 1, around MIG instances of others")
    assert hint == "give it 1 GPU without MIG instances of others, or plan for fewer graphs at once"
    assert has_plan(p, TWO_P95, solvers=solvers) is False


def test_equal_foreign_instances_on_many_gpus_are_one_group(solvers: SolverFactory) -> None:
    p = docread_problem(60, gpus=1000)
    p = occupied(p, {index: (Placement(index % 2, "1g"),) for index in range(1, 1000)})
    plan = make_plan(p, solvers=solvers)
    assert (plan.slices_total, plan.solver.status) == (6001, "optimal")


@pytest.mark.slow
@given(demand=st.integers(1, 500), slo=slos())
@FEW
def test_more_gpus_never_need_more_slices(demand: int, slo: Slo, solvers: SolverFactory) -> None:
    problems = (docread_problem(demand, gpus=n, slo=slo, batches=[1, 8]) for n in (1, 2))
    few, many = (find_plan(p, LONG, solvers=solvers) for p in problems)
    if few is not None:
        assert many is not None
        assert (many.slices_used, many.gpus_used) <= (few.slices_used, few.gpus_used)


@pytest.mark.slow
@given(demand=st.integers(1, 300), slo=slos(), latency=st.integers(0, 200), accuracy=st.sampled_from([0.5, 0.75, 1.0]))
@FEW
def test_a_looser_slo_is_never_worse(
    demand: int, slo: Slo, latency: int, accuracy: float, solvers: SolverFactory
) -> None:
    looser = replace(slo, latency_ms=slo.latency_ms + latency, accuracy=slo.accuracy * accuracy)
    problems = (docread_problem(demand, slo=s, batches=[1, 8]) for s in (slo, looser))
    tight, loose = (find_plan(p, LONG, solvers=solvers) for p in problems)
    if tight is not None:
        assert loose is not None
        assert (loose.slices_used, loose.gpus_used) <= (tight.slices_used, tight.gpus_used)


@pytest.mark.slow
@given(data=st.data(), demand=st.integers(1, 200))
@FEW
def test_the_order_of_the_input_does_not_matter(data: st.DataObject, demand: int, solvers: SolverFactory) -> None:
    def shuffled(items: Sequence[T]) -> list[T]:
        return data.draw(st.permutations(items))

    def mixed(g: TaskGraph) -> TaskGraph:
        tasks = {n: replace(t, variants=tuple(shuffled(t.variants))) for n, t in shuffled([*g.tasks.items()])}
        return replace(g, tasks=tasks)

    g, h, table = docread(), docread(name="other"), docread_profiles(batches=[1, 8])
    plain = Problem((Workload(g, demand), Workload(h, 5)), cluster(2), {"docread": table, "other": table})
    permuted = Problem(
        tuple(shuffled([Workload(mixed(g), demand), Workload(mixed(h), 5)])),
        Cluster(tuple(shuffled(plain.cluster.gpus))),
        {"other": ProfileTable(shuffled(table.rows())), "docread": ProfileTable(shuffled(table.rows()))},
    )
    one, other = (find_plan(p, LONG, solvers=solvers) for p in (plain, permuted))
    assert (one and untimed(one)) == (other and untimed(other))


@pytest.mark.slow
def test_both_solvers_find_the_same_optimum(solvers: SolverFactory) -> None:
    plans = [make_plan(docread_problem(150), Options(solver=s), solvers=solvers) for s in ("highs", "cbc")]
    assert [p.solver.name for p in plans] == ["HiGHS", "CBC"]
    assert len({(p.slices_used, p.gpus_used, p.solver.status, p.solver.gap) for p in plans}) == 1


def test_running_replicas_stay_when_the_demand_grows(solvers: SolverFactory) -> None:
    before = make_plan(docread_problem(60), solvers=solvers)
    after = make_plan(docread_problem(200, running=before), solvers=solvers)
    places = {(g.id, s.placement): s.models for g in after.gpus for s in g.layout}
    kept = [places.get((g.id, s.placement)) == s.models for g in before.gpus for s in g.layout]
    assert after.slices_used > before.slices_used
    assert sum(kept) >= len(kept) - 1


def test_measured_multiplicities_change_the_plan(solvers: SolverFactory) -> None:
    p = docread_problem(100)
    yields = {("detect", v, "CROPS"): 1.0 for v in ("tiny", "small", "base")}
    measured = replace(p, multiplicities={"docread": Multiplicities(yields=yields)})
    assert make_plan(measured, solvers=solvers).slices_used < make_plan(p, solvers=solvers).slices_used


def test_a_task_that_is_never_called_still_gets_a_replica(solvers: SolverFactory) -> None:
    p = docread_problem(1)
    yields = {("detect", v, "CROPS"): 0.0 for v in ("tiny", "small", "base")}
    plan = make_plan(replace(p, multiplicities={"docread": Multiplicities(yields=yields)}), solvers=solvers)
    recognise = plan.graphs["docread"].tasks["recognise"]
    assert recognise.rate_rps == 0
    assert sum(s.count for s in recognise.segments) == 1


def test_the_default_solver_runs_in_a_process_of_its_own() -> None:
    assert make_plan(docread_problem(1)).solver.name == "HiGHS"


class Scripted:
    """Solver that returns the given answers first, and those of a real solver afterwards."""

    def __init__(self, name: SolverName, true: Solver, *answers: Outcome | SolverFailure) -> None:
        self.name: SolverName = name
        self._true, self._answers = true, list(answers)

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        if not self._answers:
            return self._true.solve(program, time_limit_s)
        answer = self._answers.pop(0)
        if isinstance(answer, SolverFailure):
            raise answer
        if answer.status == "optimal":
            return replace(answer, values=answer.values * len(program.columns))
        return answer


CRASH = SolverFailure("it ended with status -11")
INFEASIBLE = Outcome("infeasible", (), ())
NOTHING = Outcome("optimal", (0.0,), (Stage(0.0, 0.0, True),))
ONE_OF_EACH = Outcome("optimal", (1.0,), (Stage(1.0, 1.0, True),))


@pytest.mark.slow
@pytest.mark.parametrize("answer", [CRASH, INFEASIBLE, NOTHING, ONE_OF_EACH])
def test_the_other_solver_takes_over(
    answer: Outcome | SolverFailure, highs: SolverProcess, cbc: SolverProcess, solvers: SolverFactory
) -> None:
    scripted: dict[SolverName, Solver] = {"highs": Scripted("highs", highs, *[answer] * 7), "cbc": cbc}
    plan = make_plan(docread_problem(20), solvers=lambda name: nullcontext(scripted[name]))
    assert plan.solver.name == "CBC"
    assert plan.slices_used == make_plan(docread_problem(20), solvers=solvers).slices_used


def test_an_invalid_plan_is_never_returned(solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "violations", lambda *_: ("a/0 holds too much",))
    with pytest.raises(JigsawError, match="HiGHS returned an invalid plan: a/0 holds too much; CBC returned"):
        make_plan(docread_problem(20), solvers=solvers)


def test_the_error_names_how_both_solvers_failed(highs: SolverProcess) -> None:
    with pytest.raises(JigsawError, match=r"no solver gave a valid plan: .*-11; .*-11"):
        make_plan(docread_problem(20), solvers=lambda name: nullcontext(Scripted(name, highs, CRASH)))


def test_running_out_of_time_is_an_error_where_no_plan_can_be_constructed(highs: SolverProcess) -> None:
    unknown = Outcome("unknown", (), ())
    paper = Options(formulation="paper", latency_model="2p95")

    def too_slow(name: SolverName) -> nullcontext[Scripted]:
        return nullcontext(Scripted(name, highs, *[unknown] * 3))

    with pytest.raises(JigsawError, match="no feasible plan was found within 10 s") as caught:
        make_plan(docread_problem(20), paper, solvers=too_slow)
    assert not isinstance(caught.value, InfeasibleError)
    assert has_plan(docread_problem(20), paper, solvers=too_slow) is None


def test_the_incumbent_survives_a_solver_that_hangs(highs: SolverProcess, solvers: SolverFactory) -> None:
    class HangsOnce(Scripted):
        solved = 0

        def solve(self, program: Program, time_limit_s: float) -> Outcome:
            self.solved += 1
            # The first solve finds the first incumbent.
            if self.solved == 2:
                raise SolverHung("it did not answer")
            return super().solve(program, time_limit_s)

    expected = make_plan(docread_problem(20), solvers=solvers)
    plan = make_plan(docread_problem(20), solvers=lambda name: nullcontext(HangsOnce(name, highs)))
    assert (plan.solver.name, plan.solver.status) == ("HiGHS", "feasible")
    assert plan.slices_used >= expected.slices_used


def test_an_unproven_plan_is_feasible_with_its_gap(highs: SolverProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Scripted):
        def solve(self, program: Program, time_limit_s: float) -> Outcome:
            outcome = super().solve(program, time_limit_s)
            if len(outcome.stages) < 3:
                return outcome
            value = outcome.stages[0].value
            return replace(outcome, status="feasible", stages=(Stage(value, value - 1, False),))

    plan = make_plan(docread_problem(60), solvers=lambda name: nullcontext(Cut(name, highs)))
    assert plan.solver.status == "feasible"
    # The planner's own lower bound is better than that of this solver.
    assert plan.solver.gap == 0.0
    monkeypatch.setattr(fewest_slices, "_bounded", lambda outcome, _proven: outcome)
    plan = make_plan(docread_problem(60), solvers=lambda name: nullcontext(Cut(name, highs)))
    assert plan.solver.gap == pytest.approx(1 / plan.slices_used)


def lower_bounds_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the lower bounds on slices one slice lower, so that they no longer prove a plan."""

    def one_less(*args: Any) -> dict[str, Bounds]:
        return {name: replace(b, least=b.least - 1) for name, b in bounds_of(*args).items()}

    monkeypatch.setattr(fewest_slices, "bounds_of", one_less)


def test_the_gap_of_the_first_incumbent_is_against_the_lower_bound(
    highs: SolverProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OutOfTime(Scripted):
        def solve(self, program: Program, time_limit_s: float) -> Outcome:
            # Only solves after the first incumbent have a start.
            return Outcome("unknown", (), ()) if program.start else super().solve(program, time_limit_s)

    lower_bounds_by_one(monkeypatch)
    plan = make_plan(docread_problem(60), solvers=lambda name: nullcontext(OutOfTime(name, highs)))
    assert plan.solver.status == "feasible"
    assert plan.solver.gap == pytest.approx(1 / plan.slices_used)


def test_a_proof_for_likely_configurations_does_not_hold_for_all(
    solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower_bounds_by_one(monkeypatch)
    plan = make_plan(docread_problem(60), Options(gap=0.5), solvers=solvers)
    assert plan.solver.status == "feasible"
    assert plan.solver.gap == pytest.approx(1 / plan.slices_used)


def test_python_steps_reduce_the_latency_left_for_tasks(solvers: SolverFactory) -> None:
    rows = [row("detect", "v0", p95_ms=10.0), row("classify", "v0", batch=4, p95_ms=10.0)]
    g = cropping(latency_ms=30.0, slo=Slo(80.0, accuracy=0.5))
    plan = make_plan(problem(g, rows), TWO_P95, solvers=solvers).graphs["cropping"]
    assert plan.latency_ms == pytest.approx(2 * 10.0 + 2 * 10.0 + 30.0)
    assert sum(task.budget_ms for task in plan.tasks.values()) == pytest.approx(50.0)
    assert plan.tasks["classify"].rate_rps == pytest.approx(3 * plan.demand_rps)
    with pytest.raises(InfeasibleError, match="a latency of 60 ms, less 30 ms for Python steps, is out of reach"):
        make_plan(problem(replace(g, slo=Slo(60.0, accuracy=0.5)), rows), TWO_P95, solvers=solvers)
