import pytest

from benchmarks.h100 import BATCHES, BOARD
from benchmarks.profiles.generated import ACCURACIES, TIGHTNESSES, generated
from jigsaw_triton.evaluation.gain_map import estimated
from jigsaw_triton.gpus.catalog import board


def test_a_seed_always_gives_the_same_graph() -> None:
    first, again, other = generated(7), generated(7), generated(8)
    assert first.graph == again.graph and first.table.rows() == again.table.rows()
    assert first.graph.tasks != other.graph.tasks


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_has_profiles_of_all_variants_and_can_be_served_without_s(seed: int) -> None:
    made = generated(seed)
    rows = made.table.rows()
    variants = {(task.name, v.name) for task in made.graph.tasks.values() for v in task.variants}
    assert {(row.key.task, row.key.variant) for row in rows} == variants
    assert {row.key.batch for row in rows} == set(BATCHES[: len({row.key.batch for row in rows})])
    assert ACCURACIES[0] <= made.graph.slo.accuracy <= ACCURACIES[1]
    found = estimated(made.graph, made.table, board(BOARD))
    assert found is not None
    # Variants that are faster than the best ones make an SLO looser.
    assert found.traits.tightness >= 0.9 * TIGHTNESSES[0]
