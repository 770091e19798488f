"""Weights of cells."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus.model import GatewayLimits
from jigsaw_triton.planner.cells.gateway import GatewayUse
from jigsaw_triton.planner.cells.weights import GraphSize, cells_of_graphs, levelled, pieces

LIMITS = GatewayLimits(processors=16, slots=64)


def size(slices: float, *, rounding: float = 1.5, slots: int = 1, processors: float = 0.0) -> GraphSize:
    return GraphSize(slices, rounding, GatewayUse(processors, slots))


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, GraphSize]:
    one = st.builds(size, st.floats(1, 5000), rounding=st.floats(0.5, 20), slots=st.integers(1, 300))
    return dict(enumerate_names(draw(st.lists(one, min_size=1, max_size=8))))


def enumerate_names(made: list[GraphSize]) -> list[tuple[str, GraphSize]]:
    return [(f"g{number}", one) for number, one in enumerate(made)]


@given(sizes=sizes(), slices=st.lists(st.integers(7, 500), min_size=1, max_size=12))
def test_the_weights_of_each_graph_add_up_to_one_and_no_cell_is_empty(
    sizes: dict[str, GraphSize], slices: list[int]
) -> None:
    counts = cells_of_graphs(sizes, len(slices), LIMITS)
    spread = [name for name, count in counts.items() if count == len(slices)]
    given_to, room = pieces(sizes, counts, slices)
    weights = levelled(given_to, room, sizes, spread)
    for name in sizes:
        assert math.fsum(cell.get(name, 0.0) for cell in weights) == pytest.approx(1)
        if name not in spread:
            assert sum(name in cell for cell in weights) == counts[name]
    assert all(cell and min(cell.values()) > 0 for cell in weights)
    assert weights == levelled(*pieces(sizes, counts, slices), sizes, spread)


def test_a_large_graph_is_in_all_cells_and_a_small_one_in_one() -> None:
    assert cells_of_graphs({"large": size(3000), "small": size(30)}, 10, LIMITS) == {"large": 10, "small": 1}


def test_a_graph_is_in_as_many_cells_as_its_gateways_need() -> None:
    made = {"large": size(3000), "slots": size(200, slots=130, rounding=10), "cpu": size(200, processors=40, rounding=10)}
    assert cells_of_graphs(made, 10, LIMITS) == {"large": 10, "slots": 3, "cpu": 3}


def test_a_piece_is_at_most_half_a_cell() -> None:
    assert cells_of_graphs({"large": size(3000), "other": size(1000, rounding=100)}, 10, LIMITS)["other"] == 5


def test_graphs_in_all_cells_level_the_cells() -> None:
    made = {"large": size(90), "small": size(10, rounding=5)}
    given_to, room = pieces(made, {"large": 2, "small": 1}, [50, 50])
    assert given_to == ({"small": 1.0}, {})
    assert levelled(given_to, room, made, ["large"]) == (
        {"small": 1.0, "large": pytest.approx(40 / 90)},
        {"large": pytest.approx(50 / 90)},
    )


def test_a_cell_gets_no_part_that_is_smaller_than_its_rounding() -> None:
    made = {"large": size(51, rounding=2), "small": size(49)}
    assert levelled(({"small": 1.0}, {}), (1.0, 50.0), made, ["large"]) == ({"small": 1.0}, {"large": 1.0})
