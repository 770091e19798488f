import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.station import Servers, serve
from jigsaw_triton.profiles.service import ServiceTime


def constant(ms: float, batch: int = 1, *, one_ms: float | None = None, rest: float = 0.0) -> ServiceTime:
    """Returns a service time without variation: `ms` for a full batch, `one_ms` for one item."""
    if batch == 1:
        return ServiceTime((1,), (ms,), 1.0, 1.0, rest)
    return ServiceTime((1, batch), (ms if one_ms is None else one_ms, ms), 1.0, 1.0, rest)


def finish_ms(arrivals_ms: list[float], *servers: Servers) -> list[float]:
    served = serve(np.array(arrivals_ms) / 1000, servers, np.random.default_rng(0))
    return [round(s * 1000, 6) for s in served.finish_s.tolist()]


def test_one_instance_serves_one_item_at_a_time() -> None:
    assert finish_ms([0, 1, 30], Servers("v", 1, constant(10))) == [10, 20, 40]


def test_two_instances_share_a_queue() -> None:
    assert finish_ms([0, 1, 2], Servers("v", 2, constant(10))) == [10, 11, 20]


def test_a_batch_forms_while_the_instance_is_busy_and_never_waits() -> None:
    time = constant(25, batch=4, one_ms=10)
    # The first item is served alone. Of the next five, four wait and form a batch, and the last is served after them.
    assert finish_ms([0, 1, 2, 3, 4, 5], Servers("v", 1, time)) == [10, 35, 35, 35, 35, 45]


def test_items_that_arrive_together_form_a_batch() -> None:
    assert finish_ms([0, 0, 0], Servers("v", 1, constant(30, batch=4, one_ms=15))) == [25, 25, 25]


def test_an_instance_stays_busy_for_the_rest_after_a_batch() -> None:
    assert finish_ms([0, 0], Servers("v", 1, constant(10, rest=0.5))) == [10, 25]


def test_servers_of_different_kinds_take_their_own_batch_sizes() -> None:
    large, small = Servers("large", 1, constant(40, batch=4, one_ms=40)), Servers("small", 1, constant(10))
    served = serve(np.zeros(6), [large, small], np.random.default_rng(0))
    assert served.by.tolist() == [0, 0, 0, 0, 1, 1]
    assert served.batches == 3
    assert served.busy_s == pytest.approx([0.040, 0.020])


def test_servers_without_arrivals_stay_idle() -> None:
    served = serve(np.empty(0), [Servers("v", 1, constant(10))], np.random.default_rng(0))
    assert (len(served.finish_s), served.batches, served.busy_s.tolist()) == (0, 0, [0.0])


def test_the_mean_wait_matches_the_pollaczek_khinchine_formula() -> None:
    time = ServiceTime((1,), (10.0,), p95=1.6, p99=2.2)
    arrivals_s = poisson(0.7 * 1000 / time.occupied_ms, 400_000, np.random.default_rng(3))
    served = serve(arrivals_s, [Servers("v", 1, time)], np.random.default_rng(4))
    waited_ms = 1000 * (served.finish_s - arrivals_s).mean() - time.occupied_ms
    assert waited_ms == pytest.approx(0.7 / 0.3 * time.occupied_ms * (1 + time.variation) / 2, rel=0.05)
    assert served.busy_s[0] / arrivals_s[-1] == pytest.approx(0.7, rel=0.02)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.floats(1, 20)), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_times_and_batches_of_any_queue_are_within_their_bounds(
    times: list[float], kinds: list[tuple[int, int, float]], seed: int
) -> None:
    arrivals_s = np.sort(np.array(times)) / 1000
    servers = [Servers(f"v{i}", n, constant(ms, batch=b)) for i, (n, b, ms) in enumerate(kinds)]
    served = serve(arrivals_s, servers, np.random.default_rng(seed))
    took_ms = 1000 * (served.finish_s - arrivals_s)
    assert (took_ms >= np.array([k[2] for k in kinds])[served.by] - 1e-6).all()
    assert len(served.by) == len(times)
    assert served.batches >= len(times) / max(b for _, b, _ in kinds)
    # No item is later than if one instance of the slowest kind had served all items one by one.
    assert took_ms.max() <= len(times) * max(ms for _, _, ms in kinds) + 1e-6


def test_an_item_that_would_miss_its_deadline_is_dropped_and_takes_no_time() -> None:
    deadlines_s = np.array([1.0, 0.015, 1.0])
    served = serve(np.zeros(3), [Servers("v", 1, constant(10))], np.random.default_rng(0), deadlines_s)
    assert served.finish_s.tolist() == pytest.approx([0.010, math.inf, 0.020])
    assert served.batches == 2


def test_servers_that_come_and_go_take_items_while_they_are_there() -> None:
    first, second = Servers("a", 1, constant(10), until_s=0.005), Servers("b", 1, constant(10), from_s=0.030)
    served = serve(np.array([0, 0.006, 0.040]), [first, second], np.random.default_rng(0))
    assert served.finish_s.tolist() == pytest.approx([0.010, 0.040, 0.050])
    assert served.by.tolist() == [0, 1, 1]


def test_items_without_servers_are_never_served() -> None:
    served = serve(np.array([0, 0.1, 0.2]), [Servers("v", 1, constant(10), until_s=0.05)], np.random.default_rng(0))
    assert served.finish_s.tolist() == pytest.approx([0.010, math.inf, math.inf])
