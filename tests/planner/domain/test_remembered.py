"""Results that are remembered by equal arguments."""

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jigsaw_triton.planner.domain.remembered import remembered


def test_a_result_is_remembered_by_the_subject_and_the_other_arguments() -> None:
    calls = []

    @remembered()
    def doubled(subject: str, numbers: tuple[int, ...], *, more: int = 0) -> list[int]:
        calls.append((subject, numbers, more))
        return [2 * n + more for n in numbers]

    first = doubled("a", (1,))
    assert doubled("a", (1,)) is first
    assert doubled("a", (2,)) == [4]
    assert doubled("a", (1,), more=1) == [3]
    assert doubled("b", (1,)) == first
    assert calls == [("a", (1,), 0), ("a", (2,), 0), ("a", (1,), 1), ("b", (1,), 0)]


def test_the_versions_that_were_used_last_are_kept() -> None:
    calls = []

    @remembered(versions=2)
    def version(subject: str, value: int) -> int:
        calls.append((subject, value))
        return value

    version("b", 0)
    for value in (1, 2, 1, 3, 1, 2):
        assert version("a", value) == value
    version("b", 0)
    assert calls == [("b", 0), ("a", 1), ("a", 2), ("a", 3), ("a", 2)]


def test_the_subjects_that_were_used_last_are_kept() -> None:
    calls = []

    @remembered(subjects=2)
    def itself(subject: str) -> str:
        calls.append(subject)
        return subject

    for subject in "abacab":
        assert itself(subject) == subject
    assert calls == ["a", "b", "c", "b"]


def test_an_error_is_not_remembered() -> None:
    calls = []

    @remembered()
    def failing(subject: int) -> None:
        calls.append(subject)
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            failing(1)
    assert calls == [1, 1]


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Makes the interpreter switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_each_thread_gets_the_result_for_its_own_arguments() -> None:
    @remembered(subjects=4, versions=4)
    def pair(subject: int, value: int) -> tuple[int, int]:
        return subject, value

    def wrong(seed: int) -> int:
        draw = random.Random(seed)
        asked = [(draw.randrange(5), draw.randrange(5)) for _ in range(5000)]
        return sum(pair(*each) != each for each in asked)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(wrong, range(4))) == 0
