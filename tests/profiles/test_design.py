import pytest

from jigsaw_triton.profiles.design import beyond, most_informative, next_configuration, size
from jigsaw_triton.profiles.estimation import Prior, Sample, estimate
from jigsaw_triton.profiles.latency_model import Configuration

pytest.importorskip("scipy")

GRID: list[Configuration] = [(kind, n, b) for kind in ("1g", "2g") for n in (1, 2) for b in (1, 2, 4, 8, 16, 32)]


def sample(*configurations: Configuration) -> Sample:
    return Sample(configurations, tuple(2.0 + n * b / int(kind[0]) for kind, n, b in configurations))


def test_the_smallest_configuration_comes_first() -> None:
    assert next_configuration(GRID[::-1], Sample((), ())) == ("1g", 1, 1)
    assert next_configuration(GRID, Sample((), ()), failed=[("1g", 1, 1)]) == ("2g", 1, 1)


def test_the_next_configurations_are_the_most_informative_ones() -> None:
    known = sample(("1g", 1, 1), ("2g", 2, 32))
    expected = most_informative(estimate(known, Prior()), GRID, known.configurations)
    assert next_configuration(GRID, known) == expected
    assert expected not in known.configurations


def test_nothing_is_left_when_all_is_measured_or_has_failed() -> None:
    assert next_configuration(GRID[:2], sample(*GRID[:2])) is None
    assert next_configuration(GRID, Sample((), ()), failed=[("1g", 1, 1), ("2g", 1, 1)]) is None


def test_configurations_that_are_almost_certainly_too_slow_are_left_out() -> None:
    known = sample(*GRID[:4])
    useful = set()
    while (found := next_configuration(GRID[:6], known, most_ms=12.0)) is not None:
        useful.add(found)
        known = sample(*known.configurations, found)
    # A batch of 8 takes 10 ms, one of 32 takes 34 ms.
    assert ("1g", 1, 32) not in useful
    assert next_configuration(GRID[:6], sample(*GRID[:4]), most_ms=1000) in GRID[4:6]


@pytest.mark.parametrize(
    ("configuration", "is_beyond"),
    [(("1g", 2, 4), True), (("1g", 3, 8), True), (("1g", 1, 8), False), (("1g", 2, 2), False), (("2g", 2, 4), False)],
)
def test_a_configuration_is_beyond_a_smaller_one_on_the_same_kind_of_slice(
    configuration: Configuration, is_beyond: bool
) -> None:
    assert beyond(configuration, [("1g", 2, 4)]) == is_beyond


def test_configurations_sort_by_work_then_by_slice() -> None:
    assert sorted([("7g", 1, 1), ("1g", 2, 2), ("1g", 1, 2), ("1gx2", 1, 1), ("1g", 1, 1)], key=size) == [
        ("1g", 1, 1),
        ("1gx2", 1, 1),
        ("7g", 1, 1),
        ("1g", 1, 2),
        ("1g", 2, 2),
    ]
