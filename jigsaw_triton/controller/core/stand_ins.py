"""Workers that stand in on free slices while a change has others out of service."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Place, Worker
from jigsaw_triton.controller.core.order import by_place, placed_models
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.difference import Change


def stand_ins(
    change: Change, cluster: Cluster, planned: Collection[Mapping[str, Worker]], existing: Mapping[str, Worker]
) -> list[Worker]:
    """Returns workers for a free slice with the models that another slice of the same kind has.

    Args:
        change: Models that the free slice gets.
        cluster: Cluster with the slice.
        planned: Workers by name of each generation of the change.
        existing: Workers that exist. Those of a generation that failed are copied only if they answer like one of the
            generations of the change.
    """
    planned_workers = [worker for workers in planned for worker in workers.values()]
    answers = {model.answers for worker in planned_workers for model in (*worker.models, *worker.standby)}
    board = next(gpu.board.name for gpu in cluster.gpus if gpu.id == change.gpu)
    wanted = tuple(sorted(change.after, key=str))
    here = Place(change.gpu, board, change.placement)
    for found in (*planned, existing):
        for workers in by_place(found.values()).values():
            place = workers[0].place
            if place is None or (place.board, place.placement.slice) != (board, change.placement.slice):
                continue
            alike = all(model.answers in answers for w in workers for model in w.models if not model.members)
            if alike and placed_models(workers) == wanted:
                named = ((w, names.worker(change.gpu, change.placement, w.process)) for w in workers)
                return [replace(w, name=name, place=here) for w, name in named]
    return []
