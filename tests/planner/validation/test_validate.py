"""Tests of the validator with a valid plan and plans that are spoilt in one place each."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Slo, When, Workload
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedSlice, Plan, TaskPlan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import conditional, ref, task
from tests.fakes.problems import TWO_P95, cluster, docread, docread_problem, docread_profiles, grid

pytestmark = pytest.mark.slow

PROBLEM = docread_problem(60)


@cache
def valid() -> Plan:
    return make_plan(PROBLEM)


def graph_with(plan: Plan, **fields: Any) -> Plan:
    graph: GraphPlan = replace(plan.graphs["docread"], **fields)
    return replace(plan, graphs={"docread": graph})


def task_with(plan: Plan, name: str, **fields: Any) -> Plan:
    tasks = dict(plan.graphs["docread"].tasks)
    planned: TaskPlan = replace(tasks[name], **fields)
    return graph_with(plan, tasks={**tasks, name: planned})


def segment_with(plan: Plan, name: str, **fields: Any) -> Plan:
    first, *rest = plan.graphs["docread"].tasks[name].segments
    return task_with(plan, name, segments=(replace(first, **fields), *rest))


def gpu_with(plan: Plan, **fields: Any) -> Plan:
    first, *rest = plan.gpus
    return replace(plan, gpus=(replace(first, **fields), *rest))


def layout_with(plan: Plan, change: Callable[[PlacedSlice], PlacedSlice]) -> Plan:
    first, *rest = plan.gpus[0].layout
    return gpu_with(plan, layout=(change(first), *rest))


def second(plan: Plan) -> int:
    """Start of the second slice of the first GPU."""
    return plan.gpus[0].layout[1].placement.start


def test_a_valid_plan_has_no_violations() -> None:
    assert violations(valid(), PROBLEM, Options()) == ()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: replace(p, graphs={}), "the plan is for [], not for ['docread']"),
        (lambda p: replace(p, slices_used=9), "slices used: the plan says 9, counted 3"),
        (lambda p: replace(p, slices_total=9), "total slices: the plan says 9, counted 14"),
        (lambda p: replace(p, gpus_used=2), "GPUs used: the plan says 2, counted 1"),
        (lambda p: replace(p, gpus=p.gpus * 2), "a/0 is listed 2 times"),
        (lambda p: gpu_with(p, id=GpuId("z", 0)), "z/0 is not in the cluster"),
        (lambda p: gpu_with(p, model="A100-80GB"), "a/0 is a cpu, not a A100-80GB"),
        (lambda p: gpu_with(p, layout=()), "a/0 has no slices"),
        (lambda p: gpu_with(p, layout=p.gpus[0].layout[1:]), "its segments and its placements differ"),
        (lambda p: layout_with(p, lambda s: replace(s, placement=Placement(second(p), "1g"))), "overlaps"),
        (lambda p: layout_with(p, lambda s: replace(s, placement=Placement(9, "1g"))), "cannot start at 9"),
        (lambda p: layout_with(p, lambda s: replace(s, models=())), "holds no model"),
        (lambda p: layout_with(p, lambda s: replace(s, models=s.models * 2)), "holds 2 models, not one"),
        (
            lambda p: layout_with(p, lambda s: replace(s, models=(replace(s.models[0], batch=99),))),
            "has no profile there",
        ),
        (lambda p: graph_with(p, tasks={}), "the plan has the tasks [], not ['detect', 'recognise']"),
        (lambda p: graph_with(p, demand_rps=61.0), "the plan is for 61.0 requests/s, not 60.0"),
        (lambda p: graph_with(p, capacity_rps=59.0), "its capacity 59.0 is not finite and at least the demand 60.0"),
        (lambda p: graph_with(p, capacity_rps=math.nan), "its capacity nan is not finite and at least the demand 60.0"),
        (lambda p: task_with(p, "detect", budget_ms=math.nan), "exceed its budget of nan ms"),
        (lambda p: task_with(p, "detect", segments=p.graphs["docread"].tasks["detect"].segments * 2), "more than once"),
        (lambda p: replace(p, latency_model="2p95"), "latency model: the plan says '2p95', the options say 'queue'"),
        (
            lambda p: layout_with(p, lambda s: replace(s, models=(replace(s.models[0], graph="other"),))),
            "other/detect is not in the plan",
        ),
        (lambda p: graph_with(p, accuracy=1.0), "the plan says an accuracy of 1.0"),
        (lambda p: graph_with(p, latency_ms=1.0), "the plan says 1.0 ms"),
        (lambda p: task_with(p, "detect", segments=()), "it has no segments"),
        (lambda p: task_with(p, "detect", budget_ms=1.0), "exceed its budget of 1.0 ms"),
        (lambda p: task_with(p, "detect", budget_ms=1e3), "the budgets along a path add up"),
        (lambda p: task_with(p, "recognise", rate_rps=1.0), "the plan says 1.0 calls/s"),
        (lambda p: segment_with(p, "recognise", count=9), "its segments and its placements differ"),
        (lambda p: segment_with(p, "recognise", variant="gone"), "of unknown variants ['gone']"),
        (lambda p: segment_with(p, "recognise", share=0.5), "its shares do not add up to 1"),
        (lambda p: segment_with(p, "detect", variant="base"), "its segments and its placements differ"),
    ],
)
def test_each_flaw_is_found(spoil: Callable[[Plan], Plan], reason: str) -> None:
    found = violations(spoil(valid()), PROBLEM, Options())
    assert any(reason in violation for violation in found), found


def test_an_overlap_with_foreign_instances_is_found() -> None:
    (first, *_), (gpu, *rest) = valid().gpus[0].layout, PROBLEM.cluster.gpus
    taken = replace(gpu, foreign=(first.placement,))
    p = replace(PROBLEM, cluster=replace(PROBLEM.cluster, gpus=(taken, *rest)))
    found = violations(valid(), p, Options())
    assert any("a/0" in violation and "overlaps" in violation for violation in found), found
    assert any("total slices: the plan says 14" in violation for violation in found), found


def test_a_cut_of_a_gpu_without_mig_is_found() -> None:
    (gpu, *rest) = PROBLEM.cluster.gpus
    p = replace(PROBLEM, cluster=replace(PROBLEM.cluster, gpus=(replace(gpu, uncut="MIG is off"), *rest)))
    found = violations(valid(), p, Options())
    assert "a/0 cannot be cut: MIG is off" in found


def other(**fields: Any) -> Problem:
    """The problem with its graph changed."""
    (workload,) = PROBLEM.workloads
    return replace(PROBLEM, workloads=(replace(workload, graph=replace(workload.graph, **fields)),))


@pytest.mark.parametrize(
    ("problem", "options", "reason"),
    [
        (other(slo=Slo(100.0, accuracy=0.8)), Options(), "the latencies along a path add up"),
        (other(slo=Slo(400.0, accuracy=0.99)), Options(), "the accuracy along a path is"),
        (other(tasks=docread(lines=30.0).tasks), Options(), "has to carry"),
        (PROBLEM, Options(formulation="paper"), "formulation: the plan says 'exact', the options say 'paper'"),
        (PROBLEM, Options(features="ST"), "features: the plan says 'AST', the options say 'ST'"),
        (PROBLEM, Options(features="APT"), "a slice smaller than a GPU without the feature M"),
        (other(slo=Slo(400.0, accuracy=0.9)), Options(features="AS"), "recognise: a budget of"),
        (other(slo=Slo(400.0, accuracy=0.99)), Options(features="AS"), "below 0.99 over 2 tasks"),
        (replace(PROBLEM, profiles={}), Options(), "has no profile there"),
        (
            replace(
                PROBLEM,
                profiles={"docread": ProfileTable(replace(r, memory_mib=1e6) for r in docread_profiles().rows())},
            ),
            Options(),
            "1000000 MiB in 8192",
        ),
    ],
)
def test_a_valid_plan_violates_another_problem(problem: Problem, options: Options, reason: str) -> None:
    found = violations(valid(), problem, options)
    assert any(reason in violation for violation in found), found


def test_replicas_busier_than_two_p95_allows_are_found() -> None:
    plan = make_plan(PROBLEM, TWO_P95)
    assert violations(plan, PROBLEM, TWO_P95) == ()
    found = violations(plan, PROBLEM, replace(TWO_P95, utilisation=0.5))
    assert any("has to carry" in violation for violation in found), found


def with_more_instances(row: ProfileRow) -> ProfileRow:
    return replace(row, key=replace(row.key, instances=row.key.instances + 4))


def test_violations_of_features_and_formulation_are_found() -> None:
    """The plans are made with other features or formulations, then relabelled."""
    table = docread_profiles()
    many = replace(PROBLEM, profiles={"docread": ProfileTable(map(with_more_instances, table.rows()))})
    coarse = other(slo=Slo(400.0, accuracy=0.5))
    for problem, options, reason in (
        (many, Options(formulation="paper"), "instances exceed the paper's limit of four"),
        (many, Options(features="AMT"), "instances without the feature P"),
        (coarse, Options(features="ST"), "is not the most accurate variant"),
    ):
        plan = replace(make_plan(problem), features=options.features, formulation=options.formulation)
        assert any(reason in violation for violation in violations(plan, problem, options)), reason


def test_the_validator_counts_rows_behind_a_condition_as_the_planner_does() -> None:
    g = conditional(probability=0.25)
    again = task("again", {"X": "inspect.Y"}, for_each="inspect.Y", when=g.tasks["inspect"].when)
    rarer = task("rarer", {"X": "again.Y"}, for_each="again.Y", when=When(ref("screen.SCORE"), 0.9, None, 0.5))
    g = replace(g, tasks={**g.tasks, "again": again, "rarer": rarer})
    table = ProfileTable(r for name in g.tasks for r in grid(name, "v0", 5.0, batches=[1]))
    problem = Problem((Workload(g, 80.0),), cluster(1), {g.name: table})
    plan = make_plan(problem)
    rates = {name: planned.rate_rps for name, planned in plan.graphs[g.name].tasks.items()}
    assert rates == pytest.approx({"screen": 80.0, "inspect": 20.0, "again": 20.0, "rarer": 10.0})
    assert violations(plan, problem, Options()) == ()
