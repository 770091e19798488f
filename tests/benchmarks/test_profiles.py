import pytest

from benchmarks import a100, harness
from benchmarks.effort import SMOKE
from benchmarks.profiles.__main__ import PARTS, measure
from benchmarks.profiles.sparse import filled, measured_too, sparse
from jigsaw_triton.profiles.table import ProfileTable

FIGURES = {
    "fitting": "profiles.interval_coverage",
    "checking": "profiles.check.found",
    "regret": "profiles.plan_regret.broken",
    "mapping": "profiles.map_error",
    "honest": "profiles.cpu_honest.digits",
}
"""Part -> one of its figures."""

LIVE_FIGURES = {
    "points": "profiles.points",
    "repeat": "profiles.repeat",
    "agreement": "profiles.perf_analyzer_agreement",
    "resume": "profiles.resume",
    "bring": "profiles.bring_s",
}
"""Part that starts tritonservers -> one of its figures."""

beside_the_checkout = pytest.mark.skipif(
    not a100.TABLE.exists(), reason=f"{a100.TABLE.name} is not beside the checkout"
)


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() | LIVE_FIGURES.keys() == PARTS.keys()


@pytest.mark.slow
@beside_the_checkout
@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    with harness.alarm():
        found = measure(print, {part: PARTS[part]}, SMOKE)
    assert FIGURES[part] in {figure.id for figure in found}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("part", LIVE_FIGURES)
def test_a_part_with_servers_returns_its_figures(part: str) -> None:
    with harness.alarm():
        found = {figure.id: figure.value for figure in measure(print, {part: PARTS[part]}, SMOKE)}
    assert LIVE_FIGURES[part] in found
    assert found.get("profiles.resume", 0) == found.get("profiles.resume.lost", 0) == 0


@pytest.mark.slow
@beside_the_checkout
def test_a_sparse_table_has_as_many_rows_of_each_variant_and_the_filled_one_all_that_fit() -> None:
    complete = ProfileTable(a100.a100_profiles("t", ["vgg16", "resnet50"]))
    measured = sparse(complete.rows(), 6)
    assert [sum(row.key.variant == name for row in measured) for name in ("vgg16", "resnet50")] == [6, 6]
    assert all(complete.get(row.key).latency_p50_ms == row.latency_p50_ms for row in measured)  # type: ignore[union-attr]
    table = filled(measured, complete)
    assert {row.key for row in table.rows()} <= {row.key for row in complete.rows()}
    assert len(table) > 0.8 * len(complete)
    assert {row.source for row in table.rows()} == {"measured", "fitted"}


@beside_the_checkout
def test_configurations_of_a_plan_are_measured_up_to_the_number_of_points() -> None:
    complete = ProfileTable(a100.a100_profiles("t", ["vgg16"]))
    measured = sparse(complete.rows(), 4)
    known = {row.key for row in measured}
    used = [row.key for row in complete.rows() if row.key not in known][:5]
    more = measured_too(measured, [measured[0].key, *used], complete, 6)
    assert {row.key for row in more} == known | set(used[:2])
