"""Weights of cells."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus.gateway import GatewayLimits
from jigsaw_triton.planner.cells.gateway import GatewayUse
from jigsaw_triton.planner.cells.weights import GraphSize, levelled, settled, spread_graphs

LIMITS = GatewayLimits(processors=16, workers=64)


def size(slices: float, *, rounding: float = 1.5, workers: int = 1, processors: float = 0.0) -> GraphSize:
    return GraphSize(slices, rounding, GatewayUse(processors, workers))


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, GraphSize]:
    one = st.builds(size, st.floats(1, 5000), rounding=st.floats(0.5, 20), workers=st.integers(1, 300))
    return dict(enumerate_names(draw(st.lists(one, min_size=1, max_size=8))))


def enumerate_names(made: list[GraphSize]) -> list[tuple[str, GraphSize]]:
    return [(f"g{number}", one) for number, one in enumerate(made)]


@given(sizes=sizes(), slices=st.lists(st.integers(7, 500), min_size=1, max_size=12))
def test_the_weights_of_each_graph_add_up_to_one_and_no_cell_is_empty(
    sizes: dict[str, GraphSize], slices: list[int]
) -> None:
    spread = spread_graphs(sizes, len(slices), LIMITS)
    weights = levelled(*settled(sizes, spread, slices), sizes, spread)
    for name in sizes:
        assert math.fsum(cell.get(name, 0.0) for cell in weights) == pytest.approx(1)
        assert name in spread or sum(name in cell for cell in weights) == 1
    assert all(cell and min(cell.values()) > 0 for cell in weights)
    assert weights == levelled(*settled(sizes, spread, slices), sizes, spread)


@pytest.mark.parametrize(
    ("other", "is_spread"),
    [
        (size(30), False),
        (size(1000), True),
        (size(160, rounding=10), True),
        (size(140, rounding=10), False),
        (size(140, rounding=10, workers=33), True),
        (size(140, rounding=10, processors=9), True),
        (size(140, rounding=0.5), True),
    ],
    ids=["small", "large", "half_a_cell", "less_than_half", "workers", "processors", "cheap"],
)
def test_a_graph_is_in_one_cell_if_all_cost_too_much_and_one_carries_it(other: GraphSize, is_spread: bool) -> None:
    found = spread_graphs({"large": size(3000), "other": other}, 10, LIMITS)
    assert found == (("large", "other") if is_spread else ("large",))


def test_the_largest_graph_is_in_all_cells() -> None:
    made = {"a": size(1), "b": size(1.1), "c": size(1)}
    assert "b" in spread_graphs(made, 10, LIMITS)
    assert spread_graphs({"a": size(9), "b": size(0.1)}, 10, LIMITS) == ("a",)


def test_graphs_in_all_cells_level_the_cells() -> None:
    made = {"large": size(90), "small": size(10, rounding=5)}
    given_to, room = settled(made, ["large"], [50, 50])
    assert given_to == ({"small": 1.0}, {})
    first, second = levelled(given_to, room, made, ["large"])
    assert first == pytest.approx({"small": 1.0, "large": 40 / 90})
    assert second == pytest.approx({"large": 50 / 90})


def test_a_cell_gets_no_part_that_is_smaller_than_its_rounding() -> None:
    made = {"large": size(51, rounding=2), "small": size(49)}
    assert levelled(({"small": 1.0}, {}), (1.0, 50.0), made, ["large"]) == ({"small": 1.0}, {"large": 1.0})
