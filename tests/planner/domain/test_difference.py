from collections.abc import Mapping

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu, SolverReport


def plan(places: Mapping[tuple[int, str], str]) -> Plan:
    """A plan for one GPU, from (start, slice) -> variant of app.t in that instance."""
    layout = tuple(
        PlacedSlice(Placement(start, kind), (PlacedModel("app", "t", variant, 1, 4),))
        for (start, kind), variant in places.items()
    )
    gpus = (PlannedGpu(GpuId("n", 0), "A100-80GB", layout),)
    return Plan({}, gpus, 0, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.0, 0.0))


def test_changes_are_listed_by_placement() -> None:
    before = plan({(0, "1g"): "a", (1, "1g"): "a", (4, "3g"): "a"})
    after = plan({(0, "1g"): "a", (1, "1g"): "b", (2, "2g"): "b"})
    assert [str(c) for c in difference(before, after)] == [
        "~ n/0 1g@1 app.t a instances 1 batch 4 -> app.t b instances 1 batch 4",
        "+ n/0 2g@2 app.t b instances 1 batch 4",
        "- n/0 3g@4 app.t a instances 1 batch 4",
    ]


def test_equal_plans_do_not_differ_and_a_first_plan_is_all_new() -> None:
    one = plan({(0, "1g"): "a"})
    assert difference(one, one) == ()
    assert [c.kind for c in difference(None, one)] == ["add"]
