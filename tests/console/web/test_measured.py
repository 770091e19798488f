import math

import pytest

from jigsaw_triton.console.web.measured import Measured, measured, read
from jigsaw_triton.servers.metrics import parse_metrics

LABELS = 'graph="g",task="a",variant="v"'


def text(scale: float = 1.0) -> str:
    """Metrics of `scale` times 20 calls of variant v and 20 of w, each of which waited 2 ms and took 5 to 10 ms."""
    lines = []
    for variant in ("v", "w"):
        labels = LABELS.replace('"v"', f'"{variant}"')
        lines.append(f"jigsaw_batch_items_sum{{{labels}}} {20 * scale}")
        for bound, count in (("0.005", 0), ("0.01", 10), ("+Inf", 10)):
            lines.append(f'jigsaw_batch_seconds_bucket{{{labels},le="{bound}"}} {count * scale}')
    for bound, count in (("0.005", 0), ("0.01", 40), ("+Inf", 40)):
        lines.append(f'jigsaw_dispatch_seconds_bucket{{graph="g",task="a",le="{bound}"}} {count * scale}')
    lines.append(f'jigsaw_wait_seconds_sum{{graph="g",task="a"}} {0.08 * scale}')
    lines.append(f'jigsaw_wait_seconds_count{{graph="g",task="a"}} {40 * scale}')
    for batch, batches in (("1", 4), ("4", 6)):
        labels = f'{LABELS},worker="w0",batch="{batch}"'
        lines.append(f"jigsaw_service_batches_total{{{labels}}} {batches * scale}")
        lines.append(f"jigsaw_service_seconds_total{{{labels}}} {0.01 * batches * scale}")
        lines.append(f"jigsaw_service_profiled_seconds_total{{{labels}}} {0.005 * batches * scale}")
    lines += [
        f'jigsaw_slo_total{{graph="g",outcome="{o}"}} {n * scale}'
        for o, n in (("met", 7), ("missed", 3), ("failed", 9))
    ]
    return "\n".join([*lines, 'jigsaw_arrivals_total{graph="g"} 7', ""])


def between(before: str, now: str, seconds: float = 10.0) -> Measured:
    return measured(read(parse_metrics(before), 100.0), read(parse_metrics(now), 100.0 + seconds))


def test_rates_and_percentiles_are_those_between_two_readings() -> None:
    found = between(text(1), text(3))
    task = found.tasks["g", "a"]
    assert task.rate_rps == pytest.approx(8.0)
    assert task.p50_ms == pytest.approx(7.5)
    assert task.p99_ms == pytest.approx(9.95)
    assert task.queue_ms == pytest.approx(2.0)
    variant = found.variants["g", "a", "v"]
    assert variant.rate_rps == pytest.approx(4.0)
    assert variant.p50_ms == pytest.approx(7.5)
    assert variant.queue_ms is None
    service = found.services["w0", "g", "a", "v"]
    assert service.batches_rps == pytest.approx(2.0)
    assert service.mean_ms == pytest.approx(10.0)
    assert service.slowdown == pytest.approx(2.0)
    assert found.answered_rps == {"g": pytest.approx(2.0)}


def test_counters_that_went_down_have_restarted_from_zero() -> None:
    found = between(text(5), text(1))
    assert found.tasks["g", "a"].rate_rps == pytest.approx(4.0)
    assert found.services["w0", "g", "a", "v"].batches_rps == pytest.approx(1.0)


def test_what_was_not_called_has_no_measurement() -> None:
    assert between(text(1), text(1)) == Measured()
    assert between("", "") == Measured()
    assert between(text(1), text(2), seconds=0.0) == Measured()


def test_a_chain_counts_for_each_of_its_tasks() -> None:
    chained = text().replace('"a"', '"a~b"').replace('"v"', '"v~x"').replace('"w"', '"w~x"')
    found = between("", chained)
    assert found.tasks["g", "a"] == found.tasks["g", "b"]
    assert ("g", "b", "x") in found.variants


def test_a_quantile_beyond_the_histogram_is_unknown() -> None:
    found = between("", text().replace('le="0.01"} 40.0', 'le="0.01"} 4.0'))
    assert found.tasks["g", "a"].p50_ms is None
    assert all(math.isfinite(t.rate_rps) for t in found.tasks.values())
