from dataclasses import replace

import pytest

from jigsaw_triton.profiles.filling import crossed, extrapolated, fitted_rows
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.problems import grid, row

ROOMS = {("cpu", kind): 100_000.0 for kind in ("1g", "2g", "3g", "4g", "7g")}


def measured(*, every: int = 1) -> list[ProfileRow]:
    return [replace(r, source="measured") for r in grid("t", "v", 5.0)[::every]]


def filled(rows: list[ProfileRow], wanted: list[ProfileKey], **options: float) -> dict[ProfileKey, ProfileRow]:
    table = ProfileTable(rows)
    return {r.key: r for r in fitted_rows(table, fit_latency(rows), wanted, rooms=ROOMS, **options)}  # type: ignore[arg-type]


def test_missing_configurations_are_filled_and_rows_that_exist_are_kept() -> None:
    known = [*measured(every=3), row("t", "v", slice_="7g", instances=2, batch=8)]
    wanted = crossed(measured())
    found = filled(known, wanted)
    kept = {r.key for r in known}
    assert len(wanted) == 40
    assert found.keys() == set(wanted) - kept
    assert {r.source for r in found.values()} == {"fitted"}


@pytest.mark.slow
def test_fitted_rows_have_the_kind_and_the_model_of_the_measured_rows_if_these_agree() -> None:
    known = [replace(r, processes="streams", model="a" * 12) for r in measured(every=3)]
    wanted = crossed(measured())
    assert {(r.processes, r.model) for r in filled(known, wanted).values()} == {("streams", "a" * 12)}
    ones = [replace(r, processes=None) if r.key.instances == 1 else r for r in known]
    assert {r.processes for r in filled(ones, wanted).values()} == {"streams"}
    mixed = [replace(r, model="b" * 12) if i % 2 else r for i, r in enumerate(known)]
    assert {(r.processes, r.model) for r in filled(mixed, wanted).values()} == {("streams", "")}
    others = [replace(r, processes="mps") if r.key.batch == 1 else r for r in known]
    assert {r.processes for r in filled(others, wanted).values()} == {"streams"}


def test_fitted_rows_are_filled_anew() -> None:
    known = measured(every=2)
    wanted = crossed(measured())
    first = filled(known, wanted)
    stale = [replace(r, latency_p50_ms=1.0, latency_p95_ms=1.0, latency_p99_ms=1.0) for r in first.values()]
    assert filled([*known, *stale], wanted) == first


def test_a_fitted_row_is_near_the_measurement_and_follows_its_percentiles_and_memory() -> None:
    rows = measured()
    left_out = rows.pop(17)
    found = filled(rows, [left_out.key], quantile=0.5)[left_out.key]
    assert found.latency_p50_ms == pytest.approx(left_out.latency_p50_ms, rel=0.15)
    assert found.latency_p95_ms / found.latency_p50_ms == pytest.approx(1.25, rel=1e-3)
    assert found.latency_p99_ms / found.latency_p50_ms == pytest.approx(1.375, rel=1e-3)
    assert found.memory_mib == left_out.memory_mib
    assert found.throughput_rps == pytest.approx(
        1000 * left_out.key.batch * left_out.key.instances / found.latency_p95_ms, rel=1e-3
    )


def test_a_small_throughput_is_not_rounded_to_nothing() -> None:
    slow = [replace(r, throughput_rps=1e-7 * r.throughput_rps) for r in measured(every=3)]
    assert all(r.throughput_rps > 0 for r in filled(slow, crossed(measured())).values())


def test_a_higher_quantile_gives_slower_rows_and_both_say_it() -> None:
    known, wanted = measured(every=3), crossed(measured())
    median, careful = (filled(known, wanted, quantile=q) for q in (0.5, 0.9))
    assert all(careful[key].latency_p50_ms >= median[key].latency_p50_ms for key in median)
    assert sum(careful[key].throughput_rps for key in median) < 0.97 * sum(m.throughput_rps for m in median.values())
    assert {r.origin for r in careful.values()} == {"fit of 14 rows, quantile 0.9"}


def test_the_stated_error_of_a_row_grows_with_its_distance_from_the_measured_rows() -> None:
    known = [r for r in measured() if r.key.slice in ("1g", "2g") and r.key.batch <= 4]
    near, far = ProfileKey("cpu", "t", "v", "2g", 2, 3), ProfileKey("cpu", "t", "v", "7g", 2, 64)
    found = filled(known, [near, far])
    errors = [found[key].error or 0.0 for key in (near, far)]
    assert 0 < 2 * errors[0] < errors[1]
    assert extrapolated(ProfileTable([*known, *found.values()])) == [far]


def test_a_fitted_latency_lies_between_those_of_smaller_and_larger_batches() -> None:
    rows = [replace(r, latency_p50_ms=20.0) if r.key.batch in (1, 8) else r for r in measured()]
    rows = [r for r in rows if r.key.batch != 4 or r.key.slice != "7g"]
    key = ProfileKey("cpu", "t", "v", "7g", 1, 4)
    assert filled(rows, [key])[key].latency_p50_ms == 20.0


def test_what_does_not_fit_into_the_slice_and_what_cannot_be_fitted_is_left_out() -> None:
    known = measured(every=2)
    large = ProfileKey("cpu", "t", "v", "1g", 200, 1)
    unknown = [ProfileKey(*key, 1, 1) for key in (("cpu", "t", "w", "1g"), ("A30", "t", "v", "1g"))]
    assert filled(known, [large, *unknown, ProfileKey("cpu", "t", "v", "1gx2", 1, 1)]) == {}
    assert len(filled(known, [ProfileKey("cpu", "t", "v", "1g", 100, 1)])) == 1


def test_the_processor_time_of_fitted_rows_lies_on_or_above_those_of_measured_batches() -> None:
    """A batch takes 1 ms and 0.5 ms for each item."""
    known = [replace(r, processor_ms=1 / r.key.batch + 0.5) for r in measured(every=3)]
    wanted = crossed(measured())
    for r in filled(known, wanted).values():
        assert r.processor_ms == pytest.approx(1 / r.key.batch + 0.5, rel=1e-4)
    assert {r.processor_ms for r in filled([replace(known[0], processor_ms=None), *known[1:]], wanted).values()} == {
        None
    }
