"""Drawings of plans."""

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from jigsaw_triton.planner.domain.picture import strips
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu, SolverReport


def placed(start: int, slice_: str, *models: PlacedModel) -> PlacedSlice:
    return PlacedSlice(Placement(start, slice_), models)


def test_a_piece_names_the_models_in_its_slice() -> None:
    detect, classify = PlacedModel("g", "detect", "s", 2, 8), PlacedModel("g", "classify", "a", 1, 4)
    gpu = PlannedGpu(
        GpuId("n", 0), "cpu", (placed(0, "1g", detect), placed(2, "2g", detect, classify), placed(4, "3g"))
    )
    plan = Plan({}, (gpu,), 6, 14, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))
    used, free = strips(plan, [Gpu(GpuId("n", index), CATALOG["cpu"]) for index in range(2)])
    assert [(piece.label, piece.key) for piece in used.pieces] == [
        ("detect\ns\n2x b8", "detect"),
        ("detect s\nclassify a", "detect"),
        ("", ""),
    ]
    assert free.pieces == ()


def test_notebooks_show_the_gpus_of_a_plan() -> None:
    gpu = PlannedGpu(GpuId("n", 0), "cpu", (placed(0, "1g", PlacedModel("g", "detect", "s", 1, 8)),))
    plan = Plan({}, (gpu,), 1, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))
    assert plan._repr_html_() == plan.to_svg()
    assert plan.to_svg().startswith("<svg ")
    assert "detect" in plan.to_svg()


def test_notebooks_show_no_drawing_of_a_gpu_model_that_is_not_in_the_catalog() -> None:
    plan = Plan(
        {},
        (PlannedGpu(GpuId("n", 0), "B300", ()),),
        1,
        7,
        1,
        "AST",
        "exact",
        "2p95",
        SolverReport("HiGHS", "optimal", 0.1, 0.0),
    )
    assert plan._repr_html_() is None
