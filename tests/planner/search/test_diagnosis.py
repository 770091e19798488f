"""Diagnosis of infeasible problems; every figure that a reason names is verified by planning with it."""

import re
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import TWO_P95, cluster, docread_problem, problem, row

pytestmark = pytest.mark.slow

OPTIONS = Options()


def refusal(p: Problem, solvers: SolverFactory, options: Options = OPTIONS) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, options, solvers=solvers)
    return caught.value


def number(text: str, pattern: str) -> float:
    match = re.search(pattern, text)
    assert match, (pattern, text)
    return float(match[1])


def test_a_task_without_profiles(solvers: SolverFactory) -> None:
    rows = [row("t0", "v0"), *(row("t1", "v0", gpu=gpu) for gpu in ("H100-80GB", "A100-80GB"))]
    error = refusal(problem(chain(2), rows[:1]), solvers)
    assert error.reasons == ("chain: task t1 has no profile on cpu",)
    elsewhere = refusal(problem(chain(2), rows), solvers)
    assert elsewhere.reasons == ("chain: task t1 has no profile on cpu, only on A100-80GB, H100-80GB",)
    assert error.hint == "measure it with `jigsaw-triton profile`"


@pytest.mark.parametrize(
    ("options", "profile", "why"),
    [
        (Options(features="AT"), row("t0", "v0"), "without MIG slices"),
        (Options(features="ST"), row("t0", "v1"), "without accuracy scaling"),
        (replace(TWO_P95, formulation="paper"), row("t0", "v0", instances=5), "at most 4 instances"),
    ],
)
def test_options_that_forbid_every_profile_are_the_reason(
    options: Options, profile: ProfileRow, why: str, solvers: SolverFactory
) -> None:
    g = chain(1, variant_count=2)
    error = refusal(problem(g, [profile]), solvers, options)
    assert why in str(error)
    assert error.hint.startswith("plan with all features (AST) in the exact formulation")
    without = refusal(problem(g, []), solvers, options)
    assert without.hint == "measure it with `jigsaw-triton profile`"


def test_each_task_of_a_graph_without_profiles_is_a_reason(solvers: SolverFactory) -> None:
    p = replace(docread_problem(), profiles={})
    assert len(refusal(p, solvers).reasons) == 2


def test_models_too_large_for_the_board_are_the_reason(solvers: SolverFactory) -> None:
    error = refusal(problem(chain(1), [row("t0", "v0", memory_mib=1e5)]), solvers)
    (reason,) = error.reasons
    assert reason.startswith("chain: task t0 has no usable configuration on cpu (100000 MiB do not fit 1g of cpu")


def test_a_throughput_far_beyond_what_its_latencies_allow_is_the_reason(solvers: SolverFactory) -> None:
    error = refusal(problem(chain(1), [row("t0", "v0", p95_ms=5.0, rps=1e5)]), solvers)
    (reason,) = error.reasons
    assert reason.startswith("chain: task t0 has no usable configuration on cpu (the profiled throughput is several")
    assert error.hint == "measure it with `jigsaw-triton profile`"


def test_a_latency_out_of_reach_is_the_reason_with_its_path(solvers: SolverFactory) -> None:
    rows = [row(t, "v0", p95_ms=ms) for t, ms in (("a", 5.0), ("b", 20.0), ("c", 1.0), ("d", 5.111))]
    error = refusal(problem(diamond(slo=Slo(50.0, accuracy=0.5)), rows, demand_rps=1), solvers, TWO_P95)
    assert error.reasons == (
        "diamond: a latency of 50 ms is out of reach: along a > b > d even the fastest configurations take 60.23 ms",
    )


def test_an_accuracy_out_of_reach_is_the_reason_with_its_path(solvers: SolverFactory) -> None:
    g = chain(2, variant_count=2, slo=Slo(1000.0, accuracy=0.95))
    error = refusal(problem(g, [row("t0", "v1"), row("t1", "v0")]), solvers)
    assert error.reasons == (
        "chain: an accuracy of 0.95 is out of reach: along t0 > t1 the profiled variants reach at most 0.9 of the best",
    )


def test_latency_and_accuracy_out_of_reach_give_two_reasons(solvers: SolverFactory) -> None:
    g = chain(1, variant_count=2, slo=Slo(10.0, accuracy=0.95))
    assert len(refusal(problem(g, [row("t0", "v1", p95_ms=40)]), solvers).reasons) == 2


def test_latency_and_accuracy_cannot_be_satisfied_together(solvers: SolverFactory) -> None:
    g = chain(2, variant_count=2, slo=Slo(100.0, accuracy=0.9))
    rows = [
        *(row(t, "v0", p95_ms=37.123) for t in g.tasks),
        *(row(t, "v1", p95_ms=20.0) for t in g.tasks),
    ]
    # Best and light: 114.246 ms at 0.9; both light: 80 ms at 0.81.
    error = refusal(problem(g, rows, demand_rps=1), solvers, TWO_P95)
    assert error.reasons == (
        "chain: a latency of 100 ms and an accuracy of 0.9 cannot be satisfied together: at this accuracy it takes at "
        "least 114.3 ms",
    )
    assert error.hint == "raise latency_ms to 114.3 or lower accuracy to 0.81"
    for slo in (Slo(114.3, accuracy=0.9), Slo(100.0, accuracy=0.81)):
        make_plan(problem(replace(g, slo=slo), rows, demand_rps=1), TWO_P95, solvers=solvers)


@pytest.mark.slow
def test_a_demand_beyond_the_cluster_is_the_reason_with_the_largest_one(solvers: SolverFactory) -> None:
    error = refusal(docread_problem(2000), solvers)
    most = number(str(error), r"at most docread ([\d.]+) of 2000 requests/s")
    assert make_plan(docread_problem(most), solvers=solvers).gpus_used == 2
    assert "carries at most" in str(refusal(docread_problem(most * 1.002), solvers))
    gpus = int(number(error.hint, r"give the cluster (\d+) GPUs"))
    slices = int(number(str(error), r"(\d+) compute slices on"))
    enough = make_plan(docread_problem(2000, gpus=gpus), solvers=solvers)
    assert (enough.gpus_used, enough.slices_used) == (gpus, slices)
    refusal(docread_problem(2000, gpus=gpus - 1), solvers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "figure"), [(OPTIONS, r"at most docread ([\d.]+)"), (Options(share=True), r"at least docread ([\d.]+)")]
)
def test_reasons_name_the_demand_carried_however_large_the_demand(
    options: Options, figure: str, solvers: SolverFactory
) -> None:
    carried = [number(str(refusal(docread_problem(rps), solvers, options)), figure) for rps in (1e6, 1e9)]
    make_plan(docread_problem(max(carried)), options, solvers=solvers)
    refusal(docread_problem(min(carried) * (1.002 if options == OPTIONS else 1.2)), solvers, options)


def test_two_graphs_share_the_cluster_in_proportion(solvers: SolverFactory) -> None:
    g, h = chain(1, name="g"), chain(1, name="h")
    table = ProfileTable([row("t0", "v0", slice_="3g", rps=100.0)])
    p = Problem((Workload(g, 100), Workload(h, 300)), cluster(1), {"g": table, "h": table})
    error = refusal(p, solvers, TWO_P95)
    # Two slices of 80 requests/s: one each, so h gets 80 of its 300.
    assert "g 26.66 of 100 requests/s, h 80 of 300 requests/s" in str(error)


@pytest.mark.parametrize("demand_rps", [500.0, 1e9])
def test_the_carried_part_of_the_demand_is_found_however_small(solvers: SolverFactory, demand_rps: float) -> None:
    p = problem(chain(1), [row("t0", "v0", slice_="7g", rps=100.0)], demand_rps=demand_rps)
    assert f"carries at most chain 80 of {demand_rps:g} requests/s" in str(refusal(p, solvers, TWO_P95))


def test_missing_room_for_the_replicas_that_the_latency_needs_at_any_demand_is_the_reason(
    solvers: SolverFactory,
) -> None:
    """Lower bounds prove it: a program would have to try every number of replicas."""
    p = docread_problem(20, slo=Slo(20.0, accuracy=0.8), gpus=1)
    error = refusal(p, solvers)
    assert "no room for as many replicas as the tasks need" in str(error)
    gpus = int(number(str(error), r"on (\d+) GPUs would suffice"))
    idle = replace(p, cluster=cluster(gpus), workloads=(replace(p.workloads[0], demand_rps=0.01),))
    assert make_plan(idle, solvers=solvers).gpus_used == gpus


def test_missing_room_for_one_slice_per_task_is_the_reason(solvers: SolverFactory) -> None:
    g = chain(4)
    rows = [row(t, "v0", slice_="3g") for t in g.tasks]
    error = refusal(problem(g, rows, demand_rps=1), solvers)
    assert error.reasons == (
        "the cluster has no room for as many replicas as the tasks need within the SLO, at any demand: "
        "12 compute slices on 2 GPUs would suffice, "
        "it has 7 on 1",
    )
    assert "2 GPUs" in error.hint
    make_plan(problem(g, rows, demand_rps=1, gpus=2), solvers=solvers)


def test_missing_room_for_the_larger_slices_that_the_slo_needs_is_the_reason(solvers: SolverFactory) -> None:
    g = chain(2, slo=Slo(30.0, accuracy=0.5))
    rows = [row(t, "v0", slice_=s, p95_ms=ms) for t in g.tasks for s, ms in (("1g", 10.0), ("7g", 7.0))]
    assert "no room" in str(refusal(problem(g, rows, demand_rps=1), solvers, TWO_P95))


def test_a_demand_that_is_just_met_is_feasible(solvers: SolverFactory) -> None:
    p = problem(chain(1), [row("t0", "v0", slice_="7g", rps=100.0)], demand_rps=80.0)
    assert make_plan(p, TWO_P95, solvers=solvers).graphs["chain"].capacity_rps == 80.0
    (workload,) = p.workloads
    p = replace(p, workloads=(replace(workload, demand_rps=92.0),))
    assert make_plan(p, solvers=solvers).graphs["chain"].capacity_rps == pytest.approx(92.0)
