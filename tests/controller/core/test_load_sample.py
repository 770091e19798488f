import math
from dataclasses import replace

import pytest

from jigsaw_triton.controller.core.load_sample import (
    GraphSample,
    Reading,
    load_between,
    quantile_ms,
    read_load,
    slices_in_use,
)
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.servers.metrics import parse_metrics
from tests.controller.worlds import bundle, generation, worker

MADE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/3g@4", ("t1", "b"))])
RUNNING = generation(MADE)
STATE = State(wanted=RUNNING.wanted, running=RUNNING)


def reading(scale: float, *, target: str = "graph", chain: bool = False) -> Reading:
    """Counters after `scale` times 20 requests: 14 answered, 3 refused, 1 given up by its client, 2 failed."""
    lines = [f'jigsaw_arrivals_total{{graph="app"}} {20 * scale}']
    if target == "graph":
        for outcome, count in (("met", 10), ("missed", 4), ("failed", 6)):
            lines.append(f'jigsaw_slo_total{{graph="app",outcome="{outcome}"}} {count * scale}')
    for reason, count in (("late", 2), ("full", 1), ("cancelled", 1), ("worker", 2)):
        lines.append(f'jigsaw_refused_total{{graph="app",task="t0",reason="{reason}"}} {count * scale}')
    lines.append(f'nv_inference_request_success{{model="app",version="1"}} {14 * scale}')
    lines.append(f'nv_inference_request_failure{{model="app",version="1",reason="OTHER"}} {6 * scale}')
    lines.append(f'nv_inference_request_success{{model="other",version="1"}} {99 * scale}')
    items = [("t0~t1", "b~a", 20)] if chain else [("t0", "a", 10), ("t0", "b", 10), ("t1", "a", 20)]
    for task, variant, count in items:
        lines.append(f'jigsaw_batch_items_sum{{graph="app",task="{task}",variant="{variant}"}} {count * scale}')
    lines.append(f'jigsaw_generation_requests_total{{graph="app",generation="1",outcome="met"}} {14 * scale}')
    for bound, count in (("0.1", 7), ("0.2", 14), ("+Inf", 14)):
        lines.append(f'jigsaw_generation_seconds_bucket{{graph="app",generation="1",le="{bound}"}} {count * scale}')
    return read_load(parse_metrics("\n".join(lines)))


def between(before: Reading, now: Reading) -> GraphSample:
    return load_between(before, now, 2.0, STATE, 5.0).graphs["app"]


@pytest.mark.parametrize("target", ["graph", "ensemble"])
def test_requests_are_counted_by_outcome(target: str) -> None:
    found = between(reading(1, target=target), reading(2, target=target))
    assert (found.arrivals_rps, found.served_rps, found.refused_rps, found.failed_rps) == (10.0, 7.0, 1.5, 1.0)


def test_latencies_are_those_of_the_answers_between_two_readings() -> None:
    found = between(reading(1), reading(2))
    assert found.p50_ms == pytest.approx(100.0)
    assert found.p99_ms == pytest.approx(198.0)


def test_the_accuracy_is_that_of_the_variants_that_served() -> None:
    assert between(reading(1), reading(2)).accuracy == pytest.approx(0.95)
    assert between(reading(1, chain=True), reading(2, chain=True)).accuracy == pytest.approx(0.9)


def test_a_gateway_that_was_restarted_counts_from_zero() -> None:
    found = between(reading(5), reading(1))
    assert (found.arrivals_rps, found.served_rps) == (10.0, 7.0)


def test_without_requests_there_is_no_latency_and_no_accuracy() -> None:
    nothing = GraphSample(0.0, 0.0, 0.0, 0.0, None, None, None)
    assert between(reading(1), reading(1)) == nothing
    assert between(read_load(()), read_load(())) == nothing


def test_slices_are_those_of_the_instances_that_exist() -> None:
    assert slices_in_use(STATE) == 0
    state = replace(STATE, actual=replace(STATE.actual, workers=MADE.workers))
    assert slices_in_use(state) == 4
    assert load_between(reading(1), reading(2), 1.0, state, 5.0).slices == 4


@pytest.mark.parametrize(
    ("within", "quantile", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0.0, math.inf: 0.0}, 0.5, None),
        ({1.0: 10.0, math.inf: 10.0}, 0.5, 500.0),
        ({1.0: 0.0, 2.0: 10.0, math.inf: 10.0}, 0.25, 1250.0),
        ({1.0: 1.0, math.inf: 10.0}, 0.5, None),
        ({1.0: 5.0, 2.0: 5.0, math.inf: 10.0}, 0.5, 1000.0),
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(
    within: dict[float, float], quantile: float, expected: float | None
) -> None:
    assert quantile_ms(within, quantile) == expected
