"""Conflicts of requirements, and the nearest feasible values; every value is verified by planning with it."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, available
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.explain.conflict import (
    ACCURACY_GAP,
    LATENCY_GAP,
    SHARE_GAP,
    Conflict,
    find_conflict,
    losses,
    with_conflict,
)
from jigsaw_triton.planner.explain.requirement import Requirement, requirements, value_of, varied
from jigsaw_triton.planner.search.solve import SolverFactory, has_plan, make_plan
from jigsaw_triton.profiles.table import ProfileTable
from tests.examples import costly
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster, docread_problem, problem, row

pytestmark = pytest.mark.slow

OPTIONS = Options()


def conflict(p: Problem, solvers: SolverFactory, options: Options = OPTIONS) -> Conflict:
    found = find_conflict(p, options, solvers=solvers, clock=lambda: 0.0)
    assert found is not None
    return found


def names(found: Conflict) -> dict[str, float | None]:
    return {str(r): found.nearest[r] for r in found.requirements}


def better(requirement: Requirement, value: float) -> float:
    """Returns a value that is slightly nearer to the requirement."""
    match requirement.what:
        case "gpus":
            return value - 1
        case "survive":
            return value + 2 * SHARE_GAP
        case "latency_ms":
            return value * (1 - 2 * LATENCY_GAP)
        case "accuracy":
            return min(1.0, value * 1.001)
        case "demand_rps":
            return value * 1.001


def check_nearest(p: Problem, found: Conflict, solvers: SolverFactory, options: Options = OPTIONS) -> None:
    for requirement, value in found.nearest.items():
        if value is not None:
            asked = value_of(p, requirement)
            assert has_plan(varied(p, requirement, value), options, solvers=solvers)
            nearer = better(requirement, value)
            if abs(nearer - asked) < abs(value - asked):
                assert has_plan(varied(p, requirement, nearer), options, solvers=solvers) is False


TOO_MUCH = docread_problem(2000)


@pytest.fixture(scope="module")
def of_too_much(solvers: SolverFactory) -> Conflict:
    return conflict(TOO_MUCH, solvers)


def test_demand_conflicts_with_gpus(of_too_much: Conflict, solvers: SolverFactory) -> None:
    p, found = TOO_MUCH, of_too_much
    assert set(names(found)) == {"cpu.gpus", "docread.demand_rps"}
    check_nearest(p, found, solvers)
    assert found.nearest[Requirement("docread", "latency_ms")] is None
    assert found.unsettled == frozenset()


def test_the_nearest_gpus_hold_the_replicas_that_a_latency_under_load_needs(solvers: SolverFactory) -> None:
    # One replica carries the demand, but only with four does a request find an idle one often enough.
    options = Options(latency_model="queue")
    p = problem(chain(1, slo=Slo(17.0)), [row("t0", "v0", slice_="7g", p95_ms=10.0)], demand_rps=5)
    found = conflict(p, solvers, options)
    assert set(names(found)) == {"cpu.gpus", "chain.latency_ms"}
    assert found.nearest[Requirement("cpu", "gpus")] == 4
    check_nearest(p, found, solvers, options)


def test_latency_conflicts_with_accuracy(solvers: SolverFactory) -> None:
    g = chain(2, variant_count=2, slo=Slo(100.0, accuracy=0.9))
    rows = [*(row(t, "v0", p95_ms=37.123) for t in g.tasks), *(row(t, "v1", p95_ms=20.0) for t in g.tasks)]
    found = conflict(problem(g, rows, demand_rps=1), solvers, TWO_P95)
    assert names(found) == {
        "chain.latency_ms": pytest.approx(114.246),
        "chain.accuracy": pytest.approx(0.81),
    }


def test_the_nearest_latency_fits_the_cluster(solvers: SolverFactory) -> None:
    # 24 ms need two whole GPUs; on one, both tasks have to be on smaller slices.
    g = chain(2, slo=Slo(28.0, accuracy=0.5))
    rows = [row(t, "v0", slice_=s, p95_ms=ms) for t in g.tasks for s, ms in (("7g", 6.0), ("3g", 9.0))]
    p = problem(g, rows, demand_rps=1)
    assert names(conflict(p, solvers, TWO_P95)) == {"cpu.gpus": 2, "chain.latency_ms": pytest.approx(36.0)}


@pytest.mark.parametrize("features", ["AS", "S", ""])
def test_the_nearest_latency_allows_for_even_parts_of_the_slo(features: str, solvers: SolverFactory) -> None:
    # Twice 20 ms and twice 2 ms: the plan takes 44 ms, but half of the SLO has to be 40 ms.
    g = chain(2, slo=Slo(50.0, accuracy=0.5))
    p = problem(
        g, [row("t0", "v0", slice_="7g", p95_ms=20.0), row("t1", "v0", slice_="7g", p95_ms=2.0)], demand_rps=5, gpus=2
    )
    options = replace(TWO_P95, features=features)
    found = conflict(p, solvers, options)
    assert names(found) == {"chain.latency_ms": pytest.approx(80.0, abs=1e-9)}
    check_nearest(p, found, solvers, options)


def test_a_single_requirement_is_a_conflict(solvers: SolverFactory) -> None:
    found = conflict(problem(chain(1, slo=Slo(10.0, accuracy=0.5)), [row("t0", "v0", p95_ms=40)]), solvers, TWO_P95)
    assert names(found) == {"chain.latency_ms": pytest.approx(80.0)}


def test_with_two_conflicts_no_single_requirement_helps(solvers: SolverFactory) -> None:
    g = chain(1, variant_count=2, slo=Slo(10.0, accuracy=0.95))
    found = conflict(problem(g, [row("t0", "v1", p95_ms=40)]), solvers)
    assert len(found.requirements) == 1
    assert set(found.nearest.values()) == {None}


def test_a_conflict_names_only_the_graphs_concerned(solvers: SolverFactory) -> None:
    fast, slow = chain(1, name="fast"), chain(1, name="slow", slo=Slo(10.0, accuracy=0.5))
    tables = {"fast": ProfileTable([row("t0", "v0")]), "slow": ProfileTable([row("t0", "v0", p95_ms=40)])}
    p = Problem((Workload(fast, 1), Workload(slow, 1)), cluster(1), tables)
    assert names(conflict(p, solvers, TWO_P95)) == {"slow.latency_ms": pytest.approx(80.0)}


def test_the_gpus_of_each_model_are_a_separate_requirement(solvers: SolverFactory) -> None:
    g = chain(1)
    rows = [row("t0", "v0", slice_="7g", rps=100.0), row("t0", "v0", slice_="4g", rps=100.0, gpu="A30-24GB")]
    gpus = cluster(1).gpus + cluster(2, of="A30-24GB", node="b").gpus
    p = Problem((Workload(g, 400),), Cluster(gpus), {g.name: ProfileTable(rows)})
    # A GPU of either model carries 80 requests/s; two more are needed.
    assert names(conflict(p, solvers, TWO_P95)) == {
        "A30-24GB.gpus": 4,
        "cpu.gpus": 3,
        "chain.demand_rps": pytest.approx(240.0, rel=1e-3),
    }


def test_missing_profiles_are_no_conflict(solvers: SolverFactory) -> None:
    assert find_conflict(problem(chain(1), []), OPTIONS, solvers=solvers, clock=lambda: 0.0) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [Options(features="AS"), Options(features=""), replace(TWO_P95, formulation="paper"), TWO_P95],
)
def test_nearest_values_are_feasible_with_any_options(options: Options, solvers: SolverFactory) -> None:
    p = docread_problem(500, slo=Slo(90.0, accuracy=0.9))
    check_nearest(p, conflict(p, solvers, options), solvers, options)


@pytest.mark.slow
@given(
    demand=st.sampled_from([1, 100, 1000]),
    latency=st.integers(20, 200),
    accuracy=st.sampled_from([0.7, 0.9, 1.0]),
    gpus=st.integers(1, 2),
    options=st.sampled_from([OPTIONS, TWO_P95]),
)
@costly(8)
def test_a_conflict_is_minimal(
    demand: int, latency: int, accuracy: float, gpus: int, options: Options, solvers: SolverFactory
) -> None:
    p = docread_problem(demand, gpus=gpus, slo=Slo(latency, accuracy=accuracy), batches=[1, 8])
    if has_plan(p, options, solvers=solvers):
        return
    found = conflict(p, solvers, options)
    event(", ".join(names(found)))
    nothing = {"gpus": 2000, "latency_ms": 1e5, "accuracy": 0.1, "demand_rps": 0.01}

    def without(*dropped: Requirement) -> bool | None:
        eased = p
        for r in dropped:
            eased = varied(eased, r, nothing[r.what])
        return has_plan(eased, options, solvers=solvers)

    others = [r for r in requirements(p) if r not in found.requirements]
    assert without(*others) is False
    assert all(without(*others, r) for r in found.requirements)
    check_nearest(p, found, solvers, options)


def test_losses_are_those_along_paths() -> None:
    g = chain(2, variant_count=2)
    p = problem(g, [row(t, v) for t in g.tasks for v in ("v0", "v1")])
    every = [math.exp(-loss) for loss in losses(g, _available(p))]
    assert every == pytest.approx([1.0, 0.9, 0.81])


def _available(p: Problem) -> dict[str, tuple[Configuration, ...]]:
    (workload,) = p.workloads
    return available(workload.graph, p.profiles[workload.graph.name], p.boards, OPTIONS)


@pytest.mark.slow
def test_what_time_leaves_open_is_said(solvers: SolverFactory) -> None:
    ticks = itertools.count()
    p = docread_problem(2000)
    found = find_conflict(p, Options(time_limit_s=12), solvers=solvers, clock=lambda: float(next(ticks)))
    assert found is not None
    assert found.unsettled
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, solvers=solvers)
    error = with_conflict(caught.value, p, found)
    assert "the time limit ended the search" in error.reasons[-1]
    assert error.unsettled == tuple(sorted(map(str, found.unsettled)))


def test_the_error_names_the_conflict_and_its_remedies(of_too_much: Conflict, solvers: SolverFactory) -> None:
    p, found = TOO_MUCH, of_too_much
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, solvers=solvers)
    error = with_conflict(caught.value, p, found)
    assert error.reasons == (
        *caught.value.reasons,
        "these cannot be satisfied together: 2 GPUs of cpu, docread's demand of 2000 requests/s",
    )
    most = found.nearest[Requirement("docread", "demand_rps")]
    assert most is not None
    assert f"give the cluster {found.nearest[Requirement('cpu', 'gpus')]} GPUs of cpu, or " in error.hint
    assert f"lower the demand to {math.floor(most * 10) / 10:g} requests/s" in error.hint
    assert error.conflict == ("cpu.gpus", "docread.demand_rps")
    assert error.nearest["docread.latency_ms"] is None


def test_varied_replaces_one_value() -> None:
    p = docread_problem(20.0)
    for requirement, value in zip(requirements(p), (5, 100.0, 0.5, 7.0), strict=True):
        assert value_of(varied(p, requirement, value), requirement) == value
    gpus = Requirement("cpu", "gpus")
    assert varied(varied(p, gpus, 5), gpus, 2).cluster == replace(p.cluster)
    assert len({g.id for g in varied(varied(p, gpus, 5), gpus, 9).cluster.gpus}) == 9


def test_the_nearest_mean_accuracy_lies_between_two_variants(solvers: SolverFactory) -> None:
    g = chain(1, variant_count=2, slo=Slo(100.0, accuracy=0.99, accuracy_mode="mean"))
    p = problem(g, [row("t0", "v0", rps=50.0), row("t0", "v1", rps=400.0)], demand_rps=480)
    found = conflict(p, solvers, TWO_P95)
    # One of seven slices needs the light variant for the 240 of 480 requests/s that the six others cannot carry.
    assert found.nearest[Requirement("chain", "accuracy")] == pytest.approx(0.95, abs=2 * ACCURACY_GAP)
    check_nearest(p, found, solvers, TWO_P95)


def test_more_boards_of_a_processor_do_not_add_processors() -> None:
    made = docread_problem()
    for processors, nodes in ((None, {"a", "~cpu"}), (2.0, {"a"})):
        on = replace(made, cluster=replace(made.cluster, processors=processors))
        gpus = varied(on, Requirement("cpu", "gpus"), 4).cluster.gpus
        assert ({gpu.id.node for gpu in gpus}, len({gpu.id for gpu in gpus})) == (nodes, 4)
