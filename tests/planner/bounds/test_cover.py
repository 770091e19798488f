"""Tests of the slices that cover a rate, against an enumeration of replicas."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jigsaw_triton.planner.bounds.cover import FloorCover, MeanCover
from jigsaw_triton.planner.bounds.rate_cover import _MOST_RATES, EXACT_SLICES
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import REPLICA_RANGES, ReplicaRange

pytestmark = pytest.mark.slow

SIZES = {1: "1g", 2: "2g", 3: "3g"}
MOST = 30


def configuration(size: int, rps: float, latency_ms: float, loss: float, replicas: ReplicaRange) -> Configuration:
    return Configuration(
        "g", "t", f"v{loss}", "board", SIZES[size], 1, 1, size, latency_ms, rps, loss, 0.5, replica_range=replicas
    )


@st.composite
def configurations(draw: st.DrawFn) -> list[Configuration]:
    """A few configurations, mostly of one replica range."""
    ranges = [draw(st.sampled_from(REPLICA_RANGES))] * 3 + [draw(st.sampled_from(REPLICA_RANGES))]
    one = st.builds(
        configuration,
        st.sampled_from(sorted(SIZES)),
        st.sampled_from([1.0, 1.5, 2.5, 4.0, 7.0]),
        st.sampled_from([10.0, 20.0]),
        st.sampled_from([0.0, 0.1]),
        st.sampled_from(ranges),
    )
    return sorted(set(draw(st.lists(one, min_size=2, max_size=6))))


def fewest(candidates: Sequence[Configuration], rate_rps: float, using: Configuration | None = None) -> float:
    """Slices of the smallest set of replicas of one range that carries the rate; infinite above `MOST`."""
    return min(
        _in_range(candidates, replicas, rate_rps, using)
        for replicas in REPLICA_RANGES
        if using is None or using.replica_range == replicas
    )


def _in_range(
    candidates: Sequence[Configuration],
    replicas: ReplicaRange,
    rate_rps: float,
    using: Configuration | None = None,
) -> float:
    usable = [c for c in candidates if c.replica_range == replicas]
    # (Number of replicas, slices) -> largest throughput, extended by one replica at a time.
    carried = {(1, using.compute_slices): using.throughput_rps} if using else {(0, 0): 0.0}
    every = dict(carried)
    while carried:
        more: dict[tuple[int, int], float] = {}
        for ((n, slices), rps), c in itertools.product(carried.items(), usable):
            key = (n + 1, slices + c.compute_slices)
            if key[1] <= MOST:
                more[key] = max(more.get(key, 0.0), rps + c.throughput_rps)
        every |= more
        carried = more
    enough = (s for (n, s), rps in every.items() if replicas[0] <= n <= replicas[1] and rps >= rate_rps * (1 - 1e-5))
    return min(enough, default=math.inf)


@given(found=configurations(), rate_rps=st.sampled_from([0.0, 3.0, 9.9, 21.0, 33.0, 45.0, 60.0]))
@example(
    found=[configuration(1, 1.0, 10.0, 0.0, REPLICA_RANGES[2]), configuration(3, 7.0, 10.0, 0.0, REPLICA_RANGES[2])],
    rate_rps=40.0,
).via("sixteen replicas although few would suffice")
@settings(max_examples=150, deadline=None, derandomize=True)
def test_small_numbers_of_slices_are_exact(found: list[Configuration], rate_rps: float) -> None:
    cover = FloorCover(found, bin_ms=1.0)
    slices = cover.slices(rate_rps)
    levels = np.arange(len(slices))
    for level, allowed in zip(levels.tolist(), cover.allowing(levels).T, strict=True):
        usable = [c for c, may in zip(found, allowed, strict=True) if may]
        least = fewest(usable, rate_rps)
        assert slices[level] == least or (least == math.inf and slices[level] > MOST)
        for c in usable:
            with_it = cover.slices_with(np.array([found.index(c)]), rate_rps, np.array([level]))[0]
            exactly = fewest(usable, rate_rps, c)
            assert max(with_it, slices[level]) == exactly or (exactly == math.inf and with_it > MOST)


def test_large_numbers_of_slices_are_a_lower_bound() -> None:
    found = [configuration(1, 1.0, 10.0, 0.0, REPLICA_RANGES[2]), configuration(3, 4.0, 10.0, 0.0, REPLICA_RANGES[2])]
    rate_rps = 4.0 * EXACT_SLICES
    assert FloorCover(found, bin_ms=1.0).slices(rate_rps).tolist() == [3 * EXACT_SLICES]


def test_a_cover_remembers_the_slices_of_a_limited_number_of_rates() -> None:
    found = [configuration(1, 1.0, 10.0, 0.0, REPLICA_RANGES[0]), configuration(3, 4.0, 10.0, 0.1, REPLICA_RANGES[0])]
    cover = MeanCover(found, 1.0, 0.2, 4)
    first = cover.slices(0.5)
    assert cover.slices(0.5) is first
    for number in range(200):
        cover.slices(0.01 * number)
    kept = [cover._known, *(mixtures._known for mixtures in cover._mixtures.values())]
    assert all(0 < len(known) <= _MOST_RATES for known in kept)
    assert cover.slices(0.5).tolist() == first.tolist()
