"""The rule that promotes a canary or rolls it back."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from jigsaw_triton.controller.core.canary import LEAST, LEVEL, Pair, Verdict, verdict
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.core.request_counts import RequestCounts

CANARY = Canary(0.05, 300.0)
BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.1, math.inf)


def counted(seconds: Iterable[float], failed: int = 0) -> RequestCounts:
    """Requests with these latencies, and some that failed."""
    found = list(seconds)
    within = {bound: float(sum(s <= bound for s in found)) for bound in BOUNDS}
    return RequestCounts(float(len(found) + failed), float(failed), within)


def decided(running: RequestCounts, new: RequestCounts, elapsed_s: float = 300.0) -> Verdict | None:
    return verdict({"app": Pair(running, new)}, CANARY, elapsed_s)


def test_an_equal_generation_is_promoted_at_the_deadline_and_not_before() -> None:
    running, new = counted([0.015] * 3800, failed=20), counted([0.015] * 200, failed=1)
    assert decided(running, new, 299.0) is None
    assert decided(running, new) == Verdict(
        True, "app: errors 0.5% against 0.5%, p99 20 ms against 20 ms, in 201 requests"
    )


def test_more_errors_roll_back_before_the_deadline() -> None:
    found = decided(counted([0.015] * 100), counted([], failed=5), 3.0)
    assert found == Verdict(False, "app: errors 100.0% against 0.0%, in 5 requests")


def test_one_failed_request_is_no_reason() -> None:
    assert decided(counted([0.015] * 100), counted([], failed=1), 3.0) is None
    found = decided(counted([0.015] * 3800), counted([0.015] * 199, failed=1))
    assert found is not None and found.promoted


def test_errors_that_both_generations_make_are_no_reason() -> None:
    found = decided(counted([0.015] * 1900, failed=1900), counted([0.015] * 95, failed=105))
    assert found is not None and found.promoted


def test_a_slower_generation_is_rolled_back_before_the_deadline() -> None:
    found = decided(counted([0.015] * 400), counted([0.09] * 5), 10.0)
    assert found == Verdict(
        False,
        "app: 100.0% of 5 answers took longer than 30 ms, where 99% of the running generation's took at most 20 ms",
    )


def test_a_few_percent_of_slow_answers_are_found_by_the_deadline() -> None:
    found = decided(counted([0.015] * 3800), counted([0.015] * 190 + [0.09] * 10))
    assert found is not None and not found.promoted


def test_half_as_slow_again_is_accepted() -> None:
    found = decided(counted([0.015] * 3800), counted([0.028] * 200))
    assert found is not None and found.promoted


def test_latencies_are_not_compared_with_few_answers_of_the_running_generation() -> None:
    assert decided(counted([0.015] * (LEAST - 1)), counted([0.09] * 5), 10.0) is None


def test_with_too_few_requests_nothing_is_promoted() -> None:
    found = decided(counted([0.015] * 2000), counted([0.015] * (LEAST - 1)))
    assert found is not None and not found.promoted
    assert found.reason.startswith("app: only 99 requests in 300 s, but a verdict needs 100; deploy with a larger")


def test_one_graph_that_does_worse_rolls_all_back() -> None:
    good = Pair(counted([0.015] * 2000), counted([0.015] * 200))
    bad = Pair(counted([0.015] * 2000), counted([0.015] * 180, failed=20))
    found = verdict({"good": good, "bad": bad}, CANARY, 300.0)
    assert found is not None and not found.promoted
    assert found.reason.startswith("bad: errors 10.0% against 0.0%")


@pytest.mark.slow
def test_an_equal_generation_is_seldom_rolled_back() -> None:
    """Each canary draws both generations from one distribution, and is looked at once a second.

    With the probability `LEVEL`, more than 8 of 200 canaries would be rolled back in one of 5,000 runs.
    """
    random = np.random.default_rng(1)
    rolled_back = 0
    canary = Canary(0.1, 60.0)
    for _ in range(200):
        pair = Pair(counted([]), counted([]))
        for second in range(1, 61):
            seconds = random.lognormal(math.log(0.015), 0.3, 100)
            failed, drawn = random.random(100) < 0.02, random.random(100) < canary.share
            pair = Pair(
                pair.running + counted(seconds[~failed & ~drawn], int(sum(failed & ~drawn))),
                pair.new + counted(seconds[~failed & drawn], int(sum(failed & drawn))),
            )
            found = verdict({"app": pair}, canary, float(second))
            if found is not None:
                rolled_back += not found.promoted
                break
    assert rolled_back <= 8, f"{rolled_back} of 200, at a level of {LEVEL}"
