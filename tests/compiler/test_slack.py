"""What the SLO leaves for waiting."""

from jigsaw_triton.compiler.slack import Slack, service_ms, slack
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.plan import GraphPlan, PlacedModel, PlacedSlice, Plan, PlannedGpu, SolverReport, TaskPlan
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.graphs import chain, cropping, diamond


def plan(of: TaskGraph, *models: PlacedModel) -> Plan:
    tasks = {name: TaskPlan(20.0, 1.0, ()) for name in of.tasks}
    graphs = {of.name: GraphPlan(1.0, 1.0, 1.0, 50.0, tasks)}
    layout = tuple(PlacedSlice(Placement(start, "1g"), (model,)) for start, model in enumerate(models))
    gpus = (PlannedGpu(GpuId("a", 0), "A100-80GB", layout),)
    return Plan(graphs, gpus, 1, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))


def row(variant: str, p95_ms: float) -> ProfileRow:
    return ProfileRow(ProfileKey("A100-80GB", "t0", variant, "1g", 1, 8), 1.0, p95_ms, 99.0, 1.0, 1.0, "measured")


def test_the_slowest_replica_counts_and_half_the_budget_where_nothing_is_known() -> None:
    of = chain()
    replicas = [PlacedModel(of.name, "t0", variant, 1, 8) for variant in ("v0", "v1")]
    table = ProfileTable([row("v0", 7.0), row("v1", 9.0)])
    assert service_ms(plan(of, *replicas), of, table)["t0"] == 9.0
    assert service_ms(plan(of, *replicas), of, table)["t1"] == 10.0
    assert set(service_ms(plan(of, *replicas), of, None).values()) == {10.0}


def test_what_the_slo_and_the_budget_leave_is_for_waiting() -> None:
    of = diamond(slo=Slo(250.0))
    budgets, services = {"a": 30.0, "b": 120.0, "c": 120.0, "d": 100.0}, {"a": 10.0, "b": 20.0, "c": 60.0, "d": 5.0}
    assert slack(of, budgets, services) == {
        "a": Slack(175.0, 20.0),
        "b": Slack(215.0, 100.0),
        "c": Slack(175.0, 60.0),
        "d": Slack(175.0, 95.0),
    }


def test_a_request_may_always_wait_for_half_a_batch() -> None:
    of = chain(slo=Slo(50.0))
    assert slack(of, {"t0": 25.0, "t1": 25.0}, {"t0": 40.0, "t1": 40.0})["t0"] == Slack(20.0, 20.0)


def test_python_steps_leave_less_to_wait() -> None:
    of = cropping(latency_ms=30.0, slo=Slo(100.0))
    assert slack(of, {"detect": 20.0, "classify": 50.0}, {"detect": 10.0, "classify": 20.0}) == {
        "detect": Slack(40.0, 10.0),
        "classify": Slack(40.0, 30.0),
    }
