"""The bound on waiting, against a queue that is known."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.runtime.backlog import ASK_FROM, OVERLOADED_S, TARGET, Backlog, Mark

SLACK_S = 0.8


class Queue:
    """Triton's queue and the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.came: deque[float] = deque()
        self.taken = 0
        self.asked = 0

    def waiting(self) -> int | None:
        self.asked += 1
        return len(self.came)

    def backlog(self) -> Backlog:
        return Backlog(SLACK_S, self.waiting, lambda: self.now)

    def take(self, backlog: Backlog, most: int, seen: Mark | None = None) -> tuple[float, Mark | None]:
        """Has an instance take a batch; how long its first request waited, and what the instance tells others."""
        batch = [self.came.popleft() for _ in range(min(most, len(self.came)))]
        mark = backlog.took(self.taken, len(batch), full=len(batch) == most, seen=seen)
        self.taken += len(batch)
        return self.now - batch[0], mark


def test_an_instance_that_waited_for_its_batch_has_requests_that_did_not_wait() -> None:
    queue = Queue()
    backlog = queue.backlog()
    queue.now += 30.0
    queue.came.append(queue.now)
    queue.take(backlog, 8)
    assert backlog.bound_s == 0.0
    assert queue.asked == 0


def test_a_full_batch_of_one_after_a_pause_did_not_wait_either() -> None:
    queue = Queue()
    backlog = queue.backlog()
    queue.now += 30.0
    queue.came.append(queue.now)
    queue.take(backlog, 1)
    assert backlog.bound_s == 0.0


@pytest.mark.parametrize("most", [1, 8])
def test_what_comes_all_at_once_after_a_pause_did_not_wait_before(most: int) -> None:
    queue = Queue()
    backlog = queue.backlog()
    queue.came.extend([queue.now] * most)
    queue.take(backlog, most)
    backlog.returned()
    queue.now += 30.0
    came_s = queue.now
    queue.came.extend([came_s] * 4 * most)
    while queue.came:
        queue.take(backlog, most)
        assert backlog.waited_s(0) <= queue.now - came_s + ASK_FROM * SLACK_S
        queue.now += 0.050
        backlog.returned()


def test_what_came_while_a_worker_hung_waited() -> None:
    queue = Queue()
    backlog = queue.backlog()
    queue.came.append(queue.now)
    queue.take(backlog, 8)
    for _ in range(100):
        queue.now += 0.1
        queue.came.append(queue.now)
    backlog.returned()
    queue.now += 0.1  # until the next batch has been copied to the instance
    waited_s, _ = queue.take(backlog, 8)
    assert backlog.waited_s(0) == pytest.approx(waited_s, abs=0.2)


def test_a_late_look_at_a_queue_that_was_long_before_is_no_pause() -> None:
    queue = Queue()
    backlog = queue.backlog()
    for _ in range(400):  # 8 requests every 15 ms, of which 4 are served; 5 ms of them the machine is busy
        queue.came.extend([queue.now] * 8)
        waited_s, _ = queue.take(backlog, 4)
        queue.now += 0.010
        backlog.returned()
        queue.now += 0.005
    assert waited_s > 2.9
    assert backlog.waited_s(0) == pytest.approx(waited_s, abs=2 * ASK_FROM * SLACK_S)


def test_the_bound_follows_the_queue_under_overload() -> None:
    queue = Queue()
    backlog = queue.backlog()
    bounds, waits = [], []
    backlog.returned()
    for _ in range(400):  # 8 requests every 10 ms, of which 4 are served
        queue.came.extend([queue.now] * 8)
        waits.append(queue.take(backlog, 4)[0])
        bounds.append(backlog.bound_s)
        queue.now += 0.010
        backlog.returned()
    assert waits[-1] > 1.9
    assert all(bound >= wait for bound, wait in zip(bounds, waits, strict=True))
    assert bounds[-1] - waits[-1] < 0.15
    assert backlog.waited_s(0) == pytest.approx(waits[-1], abs=0.02)
    assert backlog.waited_s(3) <= backlog.waited_s(0)
    assert queue.asked < 45


def test_busy_without_a_queue_worth_naming_is_no_overload() -> None:
    queue = Queue()
    backlog = queue.backlog()
    queue.came.extend([queue.now] * 4)
    for _ in range(1000):  # always full, and never more than 10 ms behind
        queue.came.extend([queue.now] * 4)
        queue.take(backlog, 4)
        assert backlog.bound_s < SLACK_S / 2
        queue.now += 0.010
        backlog.returned()


def test_without_an_answer_the_bound_grows() -> None:
    now = [0.0]
    backlog = Backlog(SLACK_S, lambda: None, lambda: now[0])
    for step in range(10):
        backlog.returned()
        backlog.took(4 * step, 4, full=True)
        now[0] += 0.2
    assert backlog.bound_s == pytest.approx(9 * 0.2)


def test_a_mark_of_another_instance_counts() -> None:
    now = [0.0]
    backlog = Backlog(SLACK_S, lambda: None, lambda: now[0])
    now[0] = 0.001
    backlog.returned()
    now[0] = 0.002
    backlog.took(10, 4, full=True, seen=Mark(10, 0.0015))
    assert backlog.bound_s < 0.001


def test_a_queue_has_to_stay_long_before_anything_is_refused() -> None:
    now = [0.0]
    backlog = Backlog(SLACK_S, lambda: None, lambda: now[0])

    def is_overloaded(at_s: float, waited_s: float) -> bool:
        now[0] = at_s
        backlog.took(0, 1, full=True)
        return backlog.is_overloaded(waited_s)

    target_s = TARGET * SLACK_S
    assert not is_overloaded(10.0, 1.0)
    assert not is_overloaded(10.1, target_s)  # short again
    assert not is_overloaded(10.2, 1.0)
    assert not is_overloaded(10.2 + 0.9 * target_s, 1.0)
    assert is_overloaded(10.3 + target_s, 1.0)
    backlog.refused()
    assert not is_overloaded(11.0, target_s)
    assert is_overloaded(11.1, 1.0)  # at once, as long as the overload is fresh
    assert not is_overloaded(11.2, 0.1)
    assert not is_overloaded(10.4 + target_s + OVERLOADED_S, 1.0)


@given(
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_no_request_waited_longer_than_the_bound(steps: list[tuple[float, int, int]], most: int) -> None:
    """Instances that work without a pause, and tell each other what they see."""
    queue = Queue()
    instances = [queue.backlog(), queue.backlog()]
    seen: Mark | None = None
    for pause_s, come, instance in steps:
        queue.now += pause_s
        queue.came.extend([queue.now] * come)
        queue.now += 0.001
        if queue.came:
            instances[instance].returned()
            queue.now += 0.001
            waited_s, mark = queue.take(instances[instance], most, seen)
            assert instances[instance].bound_s >= waited_s - 1e-9
            if mark is not None and (seen is None or mark.time_s > seen.time_s):
                seen = mark
