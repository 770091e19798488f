"""Results that are remembered by equal arguments."""

from jigsaw_triton.planner.domain.remembered import remembered


def test_a_result_is_remembered_by_arguments_that_cannot_be_hashed() -> None:
    calls = []

    @remembered(2)
    def doubled(numbers: dict[str, int], *, more: int = 0) -> dict[str, int]:
        calls.append((numbers, more))
        return {name: 2 * n + more for name, n in numbers.items()}

    first = doubled({"a": 1})
    assert doubled({"a": 1}) is first
    assert doubled({"a": 2}) == {"a": 4}
    assert doubled({"a": 1}, more=1) == {"a": 3}
    assert calls == [({"a": 1}, 0), ({"a": 2}, 0), ({"a": 1}, 1)]


def test_the_results_that_were_used_last_are_kept() -> None:
    calls = []

    @remembered(2)
    def itself(value: int) -> int:
        calls.append(value)
        return value

    for value in (1, 2, 1, 3, 1, 2):
        assert itself(value) == value
    assert calls == [1, 2, 3, 2]


def test_an_error_is_not_remembered() -> None:
    calls = []

    @remembered(2)
    def failing(value: int) -> None:
        calls.append(value)
        raise ValueError

    for _ in range(2):
        try:
            failing(1)
        except ValueError:
            continue
    assert calls == [1, 1]
