import math

from jigsaw_triton.controller.core.request_counts import RequestCounts, read_request_counts, request_counts_since
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


def test_counts_are_read_by_graph_and_generation() -> None:
    requests = read_request_counts(parse_metrics(METRICS))
    assert requests == {
        ("app", 3): RequestCounts(100.0, 2.0, {0.1: 95.0, 0.125: 97.0, math.inf: 98.0}),
        ("app", 4): RequestCounts(1.0, 1.0),
    }
    one = requests["app", 3]
    assert (one.answered, one.failed_ratio, one.slower(0.1)) == (98.0, 0.02, 3.0)
    assert (one.percentile_s(90.0), one.percentile_s(98.0), one.percentile_s(99.5)) == (0.1, 0.125, math.inf)
    assert requests["app", 4].percentile_s(99.0) is None


def test_the_difference_of_two_readings_counts_from_zero_after_a_restart_of_the_gateway() -> None:
    before = {("app", 3): RequestCounts(100.0, 2.0, {0.1: 98.0}), ("app", 4): RequestCounts(50.0, 0.0, {0.1: 50.0})}
    now = {
        ("app", 3): RequestCounts(110.0, 3.0, {0.1: 107.0}),
        ("app", 4): RequestCounts(7.0, 1.0, {0.1: 6.0}),
        ("app", 5): RequestCounts(1.0, 0.0, {0.1: 1.0}),
    }
    assert request_counts_since(before, now) == {
        ("app", 3): RequestCounts(10.0, 1.0, {0.1: 9.0}),
        ("app", 4): RequestCounts(7.0, 1.0, {0.1: 6.0}),
        ("app", 5): RequestCounts(1.0, 0.0, {0.1: 1.0}),
    }
