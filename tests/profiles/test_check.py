import math
from dataclasses import replace

import pytest

from jigsaw_triton.profiles.check import Finding, check_profiles
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import grid, row

ROOMS = {"cpu": dict.fromkeys(("1g", "2g", "3g", "4g", "7g"), 5000.0), "A30": {"1g": 5000.0}}


def findings(*rows: ProfileRow, graph: bool = False) -> list[Finding]:
    return check_profiles(ProfileTable(rows), rooms=ROOMS, graph=chain(1) if graph else None)


def words(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.message, finding.hint) for finding in found]


def test_consistent_profiles_have_no_findings() -> None:
    rows = grid("t0", "v0", 10.0)
    assert findings(*rows) == []
    assert check_profiles(ProfileTable(rows), rooms=ROOMS, fits=fit_latency(rows, ["assumed"])) == []


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds"), (1e6, "nanoseconds")])
def test_latencies_in_another_unit_are_an_error(factor: float, unit: str) -> None:
    wrong = row("t", "v", batch=4, instances=2)
    wrong = replace(wrong, latency_p50_ms=factor * wrong.latency_p50_ms, latency_p95_ms=factor * wrong.latency_p95_ms)
    ((severity, message, hint),) = words(findings(wrong))
    assert severity == "error"
    assert message.startswith("the throughput is 800 items/s, but 2 x batch 4 every ")
    assert hint == f"the latencies seem to be in {unit}; write milliseconds"


def test_a_throughput_that_the_latency_does_not_allow_is_an_error() -> None:
    """The latency allows 125 items/s of each instance."""
    ((severity, message, hint),) = words(findings(row("t", "v", instances=2, rps=500.0)))
    assert (severity, message) == (
        "error",
        "the throughput is 500 items/s, but 2 x batch 1 every 8 ms are 250 items/s",
    )
    assert "latency is of one batch, throughput is of all instances together" in hint
    assert findings(row("t", "v", instances=2, rps=250.0)) == []


def test_a_latency_of_almost_nothing_is_a_finding() -> None:
    tiny = replace(row("t", "v"), latency_p50_ms=1e-320)
    assert [severity for severity, _, _ in words(findings(tiny))] == ["warning"]


def test_a_low_throughput_is_a_warning() -> None:
    ((severity, message, _),) = words(findings(row("t", "v", rps=30.0)))
    assert (severity, message) == (
        "warning",
        "the throughput is only 30 items/s, while 1 x batch 1 every 8 ms are 125 items/s",
    )


def test_unknown_gpu_models_slices_tasks_and_variants_are_errors() -> None:
    found = words(
        findings(
            row("t0", "v0", gpu="A31"),
            row("t0", "v0", gpu="A30", slice_="7g"),
            row("t1", "v0"),
            row("t0", "v00"),
            graph=True,
        )
    )
    assert {text for severity, text, _ in found if severity == "error"} == {
        "there is no GPU model 'A31'",
        "A30 has no slice '7g'",
        "the graph has no task 't1', so plans ignore the row",
        "t0 has no variant 'v00', so plans ignore the row",
    }
    assert {hint for _, _, hint in found} >= {"did you mean 'A30'?", "tasks of the graph: t0", "did you mean 'v0'?"}


def test_a_variant_without_profiles_is_a_warning() -> None:
    found = findings(row("t0", "v0"), graph=True)
    missing = {variant.name for variant in chain(1).tasks["t0"].variants} - {"v0"}
    assert [(f.key, f.severity) for f in found] == [(None, "warning")] * len(missing)


def test_more_memory_than_the_slice_has_is_an_error() -> None:
    ((severity, message, _),) = words(findings(row("t", "v", memory_mib=5001.0)))
    assert (severity, message) == ("error", "5001 MiB are more than the 5000 MiB of a 1g of cpu")


def test_no_memory_is_a_warning_where_the_slice_has_a_known_one() -> None:
    ((severity, message, _),) = words(
        findings(row("t", "v", memory_mib=0.0), row("t", "v", batch=2, memory_mib=0.0), row("t", "w"))
    )
    assert (severity, message) == ("warning", "the memory of t.v on cpu is 0 MiB in 2 rows, so plans do not limit it")
    rooms = {"cpu": {"1g": math.inf}}
    assert check_profiles(ProfileTable([row("t", "v", memory_mib=0.0)]), rooms=rooms) == []


@pytest.mark.parametrize(
    ("lesser", "what"),
    [
        (row("t", "v", instances=2, batch=2, p95_ms=20.0), "16 ms of a batch of 2"),
        (row("t", "v", instances=2, batch=1, p95_ms=20.0), "16 ms of a batch of 1"),
        (row("t", "v", instances=1, batch=4, p95_ms=20.0), "16 ms with 1 instances"),
        (row("t", "v", instances=2, batch=4, slice_="3g", p95_ms=20.0), "16 ms on a 3g"),
    ],
)
def test_a_latency_that_falls_where_it_should_not_is_a_warning(lesser: ProfileRow, what: str) -> None:
    fast = row("t", "v", instances=2, batch=4, p95_ms=10.0)
    ((severity, message, _),) = words(findings(lesser, fast))
    assert (severity, message) == ("warning", f"the latency of 8 ms is less than the {what}")
    assert findings(lesser, row("t", "v", instances=2, batch=4, p95_ms=18.0)) == []
    assert findings(replace(lesser, source="fitted"), fast) == []


def test_figures_that_repeat_those_of_fewer_instances_are_a_warning() -> None:
    one = row("t", "v", instances=1, rps=100.0)
    ((_, message, _),) = words(findings(one, row("t", "v", instances=2, rps=100.0)))
    assert message == "the figures repeat those with 1 instances"


def test_rows_of_streams_and_of_processes_on_one_gpu_model_are_a_warning() -> None:
    streams = replace(row("t", "v", instances=2, p95_ms=20.0), processes="streams")
    mps = replace(row("t", "w", instances=2, p95_ms=20.0), processes="mps")
    ((severity, message, _),) = words(findings(streams, mps))
    assert (severity, message) == (
        "warning",
        "of the rows with several instances on cpu, 1 of mps and 1 of streams; no plan can use both",
    )
    assert findings(streams, replace(row("t", "w"), processes="mps")) == []


def test_a_model_that_has_changed_since_it_was_measured_is_a_warning() -> None:
    rows = [replace(row("t", "v", batch=batch, p95_ms=10.0 * batch), model="a" * 12) for batch in (1, 2)]
    table = ProfileTable([*rows, row("t", "v", batch=4, p95_ms=40.0)])
    assert check_profiles(table, rooms=ROOMS, digests={("t", "v"): "a" * 12, ("t", "w"): "b" * 12}) == []
    (finding,) = check_profiles(table, rooms=ROOMS, digests={("t", "v"): "b" * 12})
    assert (finding.key, finding.severity) == (rows[0].key, "warning")
    assert finding.message == "the model of t.v has changed since this row and 1 more were measured"


def test_a_row_far_from_the_fit_is_a_warning() -> None:
    rows = [replace(r, source="measured") for r in grid("t", "v", 10.0)]
    wrong = rows[21]
    latencies = (1.5 * wrong.latency_p50_ms, 1.5 * wrong.latency_p95_ms, 1.5 * wrong.latency_p99_ms)
    rows[21] = ProfileRow(wrong.key, *latencies, wrong.throughput_rps / 1.5, wrong.memory_mib, "measured")
    found = check_profiles(ProfileTable(rows), rooms=ROOMS, fits=fit_latency(rows))
    assert [f.key for f in found if "far from the fitted" in f.message] == [wrong.key]
    assert {f.severity for f in found} == {"warning"}
