import math

from jigsaw_triton.controller.core.tallies import Tally, read_tallies, tallies_since
from jigsaw_triton.servers.metrics import parse_metrics

METRICS = """\
jigsaw_generation_requests_total{graph="app",generation="3",outcome="met"} 90
jigsaw_generation_requests_total{graph="app",generation="3",outcome="missed"} 8
jigsaw_generation_requests_total{graph="app",generation="3",outcome="failed"} 2
jigsaw_generation_requests_total{graph="app",generation="4",outcome="failed"} 1
jigsaw_generation_seconds_bucket{graph="app",generation="3",le="0.1"} 95
jigsaw_generation_seconds_bucket{graph="app",generation="3",le="0.125"} 97
jigsaw_generation_seconds_bucket{graph="app",generation="3",le="+Inf"} 98
jigsaw_generation_seconds_count{graph="app",generation="3"} 98
jigsaw_arrivals_total{graph="app"} 101
"""


def test_tallies_are_read_by_graph_and_generation() -> None:
    tallies = read_tallies(parse_metrics(METRICS))
    assert tallies == {
        ("app", 3): Tally(100.0, 2.0, {0.1: 95.0, 0.125: 97.0, math.inf: 98.0}),
        ("app", 4): Tally(1.0, 1.0),
    }
    tally = tallies["app", 3]
    assert (tally.answered, tally.failed_ratio, tally.slower(0.1)) == (98.0, 0.02, 3.0)
    assert (tally.percentile_s(90.0), tally.percentile_s(98.0), tally.percentile_s(99.5)) == (0.1, 0.125, math.inf)
    assert tallies["app", 4].percentile_s(99.0) is None


def test_the_difference_of_two_readings_counts_from_zero_after_a_restart_of_the_gateway() -> None:
    before = {("app", 3): Tally(100.0, 2.0, {0.1: 98.0}), ("app", 4): Tally(50.0, 0.0, {0.1: 50.0})}
    now = {
        ("app", 3): Tally(110.0, 3.0, {0.1: 107.0}),
        ("app", 4): Tally(7.0, 1.0, {0.1: 6.0}),
        ("app", 5): Tally(1.0, 0.0, {0.1: 1.0}),
    }
    assert tallies_since(before, now) == {
        ("app", 3): Tally(10.0, 1.0, {0.1: 9.0}),
        ("app", 4): Tally(7.0, 1.0, {0.1: 6.0}),
        ("app", 5): Tally(1.0, 0.0, {0.1: 1.0}),
    }
