import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.front.shares import shares, weights

PLANNED = {"a": 0.5, "b": 0.3, "c": 0.2}


def test_cells_that_carry_their_share_get_it_whatever_their_capacities_are() -> None:
    assert shares(PLANNED, {"a": 500, "b": 31, "c": 20}, 100) == pytest.approx(PLANNED)


def test_what_a_cell_does_not_carry_goes_to_the_others_by_their_shares() -> None:
    found = shares(PLANNED, {"a": 25, "b": 900, "c": 900}, 100)
    assert found == pytest.approx({"a": 0.25, "b": 0.45, "c": 0.3})


def test_a_cell_that_is_full_by_the_share_of_another_one_passes_the_rest_on() -> None:
    found = shares(PLANNED, {"a": 25, "b": 40, "c": 900}, 100)
    assert found == pytest.approx({"a": 0.25, "b": 0.4, "c": 0.35})


def test_under_overload_all_cells_are_loaded_alike() -> None:
    assert shares(PLANNED, {"a": 40, "b": 40, "c": 20}, 300) == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})


def test_a_cell_that_reports_nothing_keeps_its_planned_share() -> None:
    found = shares(PLANNED, {"a": 10, "b": 900}, 50)
    assert found == pytest.approx({"a": 0.8 * 10 / 50, "b": 0.8 * 40 / 50, "c": 0.2})


@pytest.mark.parametrize(("capacity", "load"), [({}, 10.0), ({"a": 5.0}, 0.0), ({"a": 0.0, "b": 0.0}, 10.0)])
def test_without_load_or_capacity_shares_are_as_planned(capacity: dict[str, float], load: float) -> None:
    assert shares(PLANNED, capacity, load) == PLANNED


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 100)), min_size=1, max_size=6),
    st.floats(0, 200),
)
def test_shares_are_those_planned_in_sum_and_no_cell_is_overloaded_before_all_are(
    cells: list[tuple[float, float]], load_rps: float
) -> None:
    total = sum(share for share, _ in cells)
    planned = {str(number): share / total for number, (share, _) in enumerate(cells)}
    capacity = {str(number): rps for number, (_, rps) in enumerate(cells)}
    found = shares(planned, capacity, load_rps)
    assert sum(found.values()) == pytest.approx(1)
    if load_rps <= sum(capacity.values()):
        assert all(found[cell] * load_rps <= capacity[cell] * (1 + 1e-6) + 1e-6 for cell in found)


def test_weights_are_proportional_and_none_is_zero() -> None:
    assert weights({"a": 0.5, "b": 0.25, "c": 0.0001}) == {"a": 256, "b": 128, "c": 1}
    assert weights({"a": 0.0}) == {"a": 1}
    assert weights({}) == {}
