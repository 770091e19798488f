from collections.abc import Sequence
from dataclasses import replace

from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.report.figures import Basis, ReportFigures, TaskFigures, per_slice, report_figures
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain, graph, task
from tests.fakes.problems import grid, row

ROOMS = {"cpu": {"1g": 1000.0, "2g": float("inf")}}


def application(count: int, latency_ms: float = 100.0) -> TaskGraph:
    """Returns a graph with the task t0, whose variants v0, v1 and so on are less and less accurate."""
    return chain(1, variant_count=count, slo=Slo(latency_ms))


def figures(rows: Sequence[ProfileRow], described: TaskGraph | None = None) -> ReportFigures:
    return report_figures(ProfileTable(rows), file="p.csv", graph=described, bases={}, rooms=ROOMS)


def only(report: ReportFigures) -> TaskFigures:
    (found,) = report.tasks
    return found


def test_the_best_row_has_the_highest_throughput_per_compute_slice_within_the_slo() -> None:
    rows = [
        row("t0", "v0", batch=1, rps=50.0),
        row("t0", "v0", slice_="2g", batch=2, rps=110.0),
        row("t0", "v0", slice_="3g", batch=2, rps=150.0),
        row("t0", "v0", batch=8, rps=90.0, p95_ms=200.0),
    ]
    (variant,) = only(figures(rows, application(1))).variants
    assert variant.best == rows[1]
    assert per_slice(rows[1]) == 55.0
    assert len(variant.within) == 3
    (variant,) = only(figures(rows)).variants
    assert variant.best == rows[3]
    (variant,) = only(figures(rows, application(1, 5.0))).variants
    assert (variant.best, variant.within, variant.fastest) == (None, (), rows[0])


def test_a_variant_that_is_less_accurate_and_slower_is_dominated() -> None:
    rows = [row("t0", f"v{index}", rps=rps) for index, rps in enumerate((10.0, 30.0, 20.0, 30.0, 50.0))]
    found = only(figures(rows, application(5))).variants
    assert [one.name for one in found] == ["v0", "v1", "v2", "v3", "v4"]
    assert [one.dominated_by for one in found] == ["", "", "v1", "v1", ""]
    assert [one.on_front for one in found] == [True, True, False, False, True]
    assert next(one.relative_accuracy for one in found) == 1.0


def test_without_a_graph_accuracy_and_front_are_unknown() -> None:
    (variant,) = only(figures([row("t0", "v0")])).variants
    assert (variant.accuracy, variant.relative_accuracy, variant.on_front, variant.dominated_by) == (
        None,
        None,
        False,
        "",
    )


def test_the_front_of_a_variant_rises_with_the_latency() -> None:
    rows = grid("t0", "v0", 10.0)
    (variant,) = only(figures(rows)).variants
    steps = [(one.latency_p95_ms, per_slice(one)) for one in variant.front]
    assert steps == sorted(steps) and len({throughput for _, throughput in steps}) == len(steps)
    assert all(any(p95 <= one.latency_p95_ms and rps >= per_slice(one) for p95, rps in steps) for one in rows)


def test_tasks_are_in_the_order_of_the_graph_and_unknown_ones_last() -> None:
    described = graph([task("b", {"X": "inputs.X"}), task("a", {"X": "b.Y"})], {"Y": "a.Y"})
    rows = [row(name, "v0", gpu=gpu) for name in ("a", "b", "c") for gpu in ("cpu", "A30-24GB")]
    report = figures(rows, described)
    assert [(one.task, one.gpu) for one in report.tasks] == [
        ("b", "A30-24GB"),
        ("b", "cpu"),
        ("a", "A30-24GB"),
        ("a", "cpu"),
        ("c", "A30-24GB"),
        ("c", "cpu"),
    ]
    assert report.gpus == ("A30-24GB", "cpu")


def test_only_known_memory_of_slices_is_kept() -> None:
    assert only(figures([row("t0", "v0")])).rooms == {"1g": 1000.0}
    assert only(figures([row("t0", "v0", gpu="Unknown-1")])).rooms == {}


def test_each_row_of_the_fit_has_its_own_prediction() -> None:
    rows = [replace(one, source="measured") for one in grid("t0", "v0", 10.0)]
    assumed = row("t0", "v0", instances=9)
    fit = fit_latency(rows)["cpu"]
    bases = {"cpu": Basis(fit, ("measured",))}
    report = report_figures(ProfileTable([assumed, *rows]), file="p.csv", bases=bases, rooms=ROOMS)
    (variant,) = only(report).variants
    assert variant.validation is not None
    assert [one.row for one in variant.validation.predictions] == list(ProfileTable(rows).rows())
    for one, deviation in zip(variant.validation.predictions, fit.variants["t0", "v0"].deviations, strict=True):
        low, high = one.interval_ms
        assert low < one.predicted_ms < high
        assert one.inside == (low <= one.row.latency_p50_ms <= high)
        assert one.deviation == deviation
    inside = [one.inside for one in variant.validation.predictions]
    assert variant.validation.coverage == sum(inside) / len(inside)
    assert variant.validation.median_error == fit.variants["t0", "v0"].median_error
