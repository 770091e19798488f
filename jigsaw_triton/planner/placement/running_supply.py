"""Supply of slices that also counts running replicas, so that the program can price the ones it moves."""

from collections import Counter
from collections.abc import Collection, Mapping

from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, Occupancy, Placement
from jigsaw_triton.planner.candidates.configurations import Replica
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.formulation.supply import GpuGroup, Supply, SupplyUnit, undominated, useful_multisets
from jigsaw_triton.planner.placement.placement import running_slices


def running_supply(
    cluster: Cluster, board: Board, kinds: Collection[str], running: Plan, known: Collection[Replica]
) -> Supply:
    """Returns the slices of these kinds, and replicas kept in place, that the GPUs of one board can supply.

    A layout supplies a running replica if it has the replica's MIG instance at the same placement.

    Args:
        cluster: Cluster of the GPUs.
        board: Board of the GPUs.
        kinds: Kinds of slices, including those of the replicas.
        running: Plan that runs now.
        known: Replicas that may stay; models that share a slice do not count.
    """
    slices = running_slices(cluster, running)
    numbers = Counter[tuple[Occupancy, tuple[tuple[Placement, Replica], ...]]]()
    for gpu in cluster.gpus:
        if gpu.board.name == board.name:
            present = {
                place: (model.graph, model.task, model.variant, board.name, place.slice, model.instances, model.batch)
                for place, models in slices.get(gpu.id, {}).items()
                if len(models) == 1
                for model in models
            }
            stays = sorted((place, replica) for place, replica in present.items() if replica in known)
            numbers[gpu.occupancy, tuple(stays)] += 1
    groups = tuple(
        GpuGroup(number, _multisets(board, kinds, occupancy, dict(stays)))
        for (occupancy, stays), number in numbers.items()
    )
    return Supply(board, groups, useful_multisets(board, kinds))


def _multisets(
    board: Board, kinds: Collection[str], occupancy: Occupancy, present: Mapping[Placement, Replica]
) -> tuple[Counter[SupplyUnit], ...]:
    if not present:
        return useful_multisets(board, kinds, occupancy)
    return undominated(
        Counter[SupplyUnit](
            [*(place.slice for place in layout), *(present[place] for place in layout if place in present)]
        )
        for layout in maximal_layouts(board, occupancy.kinds(board, kinds), occupancy.foreign)
    )
