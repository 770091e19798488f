"""GPUs counted by what runs on them as well, so that a program knows what a plan leaves in place."""

from collections import Counter
from collections.abc import Collection, Mapping

from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, Placement, Standing
from jigsaw_triton.planner.candidates.configurations import Replica
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.formulation.supply import Alike, Given, Supply, undominated, useful_multisets
from jigsaw_triton.planner.placement.placement import running_slices


def standing_supply(
    cluster: Cluster, board: Board, kinds: Collection[str], running: Plan, known: Collection[Replica]
) -> Supply:
    """What the cluster's GPUs of a model can give of these kinds, and of replicas that stay where they are.

    A cut gives a replica that runs now where it has that MIG instance in the same place.

    Args:
        cluster: Whose GPUs.
        board: Their model.
        kinds: Of slices, those of the replicas included.
        running: What runs now.
        known: Replicas that may stay. What shares a slice does not.
    """
    slices = running_slices(cluster, running)
    alike = Counter[tuple[Standing, tuple[tuple[Placement, Replica], ...]]]()
    for gpu in cluster.gpus:
        if gpu.board.name == board.name:
            here = {
                place: (model.graph, model.task, model.variant, board.name, place.slice, model.instances, model.batch)
                for place, models in slices.get(gpu.id, {}).items()
                if len(models) == 1
                for model in models
            }
            stays = sorted((place, replica) for place, replica in here.items() if replica in known)
            alike[gpu.standing, tuple(stays)] += 1
    groups = tuple(
        Alike(number, _multisets(board, kinds, standing, dict(stays))) for (standing, stays), number in alike.items()
    )
    return Supply(board, groups, useful_multisets(board, kinds))


def _multisets(
    board: Board, kinds: Collection[str], standing: Standing, here: Mapping[Placement, Replica]
) -> tuple[Counter[Given], ...]:
    if not here:
        return useful_multisets(board, kinds, standing)
    return undominated(
        Counter[Given]([*(place.slice for place in layout), *(here[place] for place in layout if place in here)])
        for layout in maximal_layouts(board, standing.kinds(board, kinds), standing.foreign)
    )
