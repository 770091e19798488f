from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.graph.model import Slo, Variant
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LatencyModel, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.planner.standby import LEAST_GAIN, with_standby
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import TWO_P95, docread_problem, problem, row

LARGE, SMALL, TINY = (Variant("v0", 1.0, "t"), Variant("v1", 0.95, "t"), Variant("v2", 0.8, "t"))
SPEED = {"v0": 1.0, "v1": 3.0, "v2": 9.0}
PLACES: Places = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}
"""One replica of each task of a chain with the large variant. By 2 x p95 and 80%, a replica of `v0` carries 10 calls/s,
and one of `v1` 30."""

ROWS = [row(task, variant, rps=12.5 * SPEED[variant]) for task in ("t0", "t1") for variant in SPEED]


def asked(rows: list[ProfileRow] = ROWS, accuracy: float = 0.9, tasks: int = 2) -> Problem:
    of = chain(tasks)
    variants = {name: replace(task, variants=(LARGE, SMALL, TINY)) for name, task in of.tasks.items()}
    of = replace(of, slo=Slo(1000.0, accuracy=accuracy), tasks=variants)
    return problem(of, ProfileTable(rows), demand_rps=8.0, gpus=1)


def found(of: Problem, places: Places = PLACES, options: Options = TWO_P95) -> Plan:
    return with_standby(of, plan_of(places, demand_rps=8.0), options)


def standby(plan: Plan) -> dict[str, str]:
    """Returns the variant that stands by for each task; every slice of the task has it."""
    return {m.task: m.variant for gpu in plan.gpus for placed in gpu.layout for m in placed.standby}


def test_the_variant_that_carries_most_within_the_accuracy_slo_stands_by() -> None:
    plan = found(asked(accuracy=0.9))
    assert standby(plan) == {"t0": "v1", "t1": "v1"}
    planned = plan.graphs["chain"]
    assert planned.standby is not None
    assert planned.standby.capacity_rps == pytest.approx(30.0)
    assert planned.standby.accuracy == pytest.approx(0.95**2)
    assert standby(found(asked(accuracy=0.6))) == {"t0": "v2", "t1": "v2"}


def test_standby_variants_carry_at_most_what_the_processors_of_the_machine_do() -> None:
    """A request needs a processor for 2 / 37.5 s, if both tasks use the variant that stands by."""
    of = asked([replace(row, source="measured") for row in ROWS], accuracy=0.9)
    of = replace(of, cluster=replace(of.cluster, processors=1.0))
    planned = found(of).graphs["chain"]
    assert planned.standby is not None
    assert planned.standby.capacity_rps == pytest.approx(37.5 / 2, rel=0.01)
    plan = plan_of(PLACES, demand_rps=8.0)
    full = replace(plan, graphs={"chain": replace(plan.graphs["chain"], capacity_rps=18.0)})
    assert with_standby(of, full, TWO_P95).graphs["chain"].standby is None


def test_the_slices_and_the_models_that_serve_stay() -> None:
    plain, plan = plan_of(PLACES, demand_rps=8.0), found(asked())
    assert [(g.id, [(s.placement, s.models) for s in g.layout]) for g in plan.gpus] == [
        (g.id, [(s.placement, s.models) for s in g.layout]) for g in plain.gpus
    ]
    assert plan.slices_used == plain.slices_used


def test_without_spatial_partitioning_a_variant_with_several_instances_does_not_stand_by() -> None:
    of, places = asked(), {0: {"7g@0": "t0.v0"}, 1: {"7g@0": "t1.v0"}}
    rows = [
        row(task, variant, slice_="7g", instances=instances, rps=12.5 * SPEED[variant])
        for task in ("t0", "t1")
        for variant, instances in (("v0", 1), ("v1", 2))
    ]
    of = replace(
        of, profiles={"chain": ProfileTable(rows)}, cluster=problem(chain(1), ProfileTable([]), gpus=2).cluster
    )
    assert standby(found(of, places)) == {"t0": "v1", "t1": "v1"}
    assert standby(found(of, places, replace(TWO_P95, features="AT"))) == {}


def test_there_is_none_if_one_task_cannot_carry_more() -> None:
    # The accuracy allows the small variant for one of the tasks, but then the other limits the graph.
    plan = found(asked(accuracy=0.93))
    assert standby(plan) == {}
    assert plan.graphs["chain"].standby is None


def test_tasks_that_do_not_limit_the_graph_get_none() -> None:
    rows = [row("t0", variant, rps=12.5 * SPEED[variant]) for variant in SPEED]
    rows += [row("t1", variant, rps=50.0 * SPEED[variant]) for variant in SPEED]
    assert standby(found(asked(rows, accuracy=0.9))) == {"t0": "v1"}


@pytest.mark.parametrize(
    "change",
    [
        {"memory_mib": 9000.0},
        {"latency_p50_ms": 300.0, "latency_p95_ms": 300.0, "latency_p99_ms": 300.0},
        {"throughput_rps": 12.5 * (LEAST_GAIN - 0.01)},
    ],
    ids=["memory", "latency", "gain"],
)
def test_a_variant_that_does_not_fit_does_not_stand_by(change: dict[str, Any]) -> None:
    rows = [replace(r, **change) if r.key.variant != "v0" else replace(r, memory_mib=4000.0) for r in ROWS]
    assert standby(found(asked(rows, accuracy=0.9))) == {}


def test_the_best_configuration_within_the_latency_budget_is_taken() -> None:
    more = [row(task, "v1", batch=4, rps=75.0, p95_ms=40.0) for task in ("t0", "t1")]
    slow = [row(task, "v1", batch=8, rps=150.0, p95_ms=80.0) for task in ("t0", "t1")]
    plan = found(asked([*ROWS, *more, *slow]))
    models = {m for gpu in plan.gpus for placed in gpu.layout for m in placed.standby}
    # A budget of 100 ms has room for two batches of 40 ms, not of 80 ms.
    assert models == {PlacedModel("chain", task, "v1", 1, 4) for task in ("t0", "t1")}


@pytest.mark.parametrize(
    "options",
    [
        replace(TWO_P95, standby="off"),
        replace(TWO_P95, features="ST"),
        replace(TWO_P95, formulation="paper"),
    ],
)
def test_baselines_have_none_and_it_can_be_switched_off(options: Options) -> None:
    plain = plan_of(PLACES, demand_rps=8.0)
    assert with_standby(asked(), plain, options) == plain


def test_a_plan_with_standby_variants_is_read_as_it_was_written() -> None:
    plan = found(asked())
    assert plan_from_json(plan.to_json(), where="plan.json") == plan


def test_a_plan_of_an_earlier_release_has_none() -> None:
    plain = plan_of(PLACES, demand_rps=8.0)
    data = plain.to_json()
    del data["graphs"]["chain"]["standby"]
    for gpu in data["gpus"]:
        for placed in gpu["layout"]:
            del placed["standby"]
    assert plan_from_json(data, where="plan.json") == plain


def with_accuracy(of: Problem, accuracy: float) -> Problem:
    workloads = (replace(w, graph=replace(w.graph, slo=replace(w.graph.slo, accuracy=accuracy))) for w in of.workloads)
    return replace(of, workloads=tuple(workloads))


@pytest.mark.slow
@pytest.mark.parametrize("latency_model", LATENCY_MODELS)
def test_standby_variants_are_valid_and_the_validator_finds_what_is_not(
    latency_model: LatencyModel, solvers: SolverFactory
) -> None:
    options = replace(TWO_P95, latency_model=latency_model)
    of = docread_problem(60)
    # The plan is made for a stricter accuracy than the one that its standby variants have to keep.
    plan = with_standby(with_accuracy(of, 0.5), make_plan(with_accuracy(of, 0.9), options, solvers=solvers), options)
    assert violations(plan, with_accuracy(of, 0.5), options) == ()
    strict = violations(plan, with_accuracy(of, 0.9), options)
    assert len(strict) == 1 and "with standby variants" in strict[0]
    off = violations(plan, with_accuracy(of, 0.5), replace(options, standby="off"))
    assert off and all("is not allowed there" in reason for reason in off)
    silent = replace(plan, graphs={"docread": replace(plan.graphs["docread"], standby=None)})
    assert "contradict each other" in "".join(violations(silent, with_accuracy(of, 0.5), options))
