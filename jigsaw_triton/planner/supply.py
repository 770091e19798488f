"""How many slices of each kind the GPUs of one model can give together."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import Board, Cluster

_COMPUTE = "compute"
"""What all kinds of slices are made of where packing is ideal."""


@dataclass(frozen=True, slots=True)
class Supply:
    """The GPUs of one model.

    Attributes:
        board: The model.
        gpus: How many there are.
        multisets: What one GPU can be cut into, kinds not in question left out: what it gives -> how many.
        ideal: A GPU gives compute slices, and any kinds of MIG instance can be made of them.
    """

    board: Board
    gpus: int
    multisets: tuple[Counter[str], ...]
    ideal: bool = False

    def takes(self, kind: str) -> tuple[str, int]:
        """What a slice of this kind takes of what a GPU gives, and how many of them."""
        return (_COMPUTE, self.board.profiles[kind].compute_slices) if self.ideal else (kind, 1)

    def most(self, kind: str) -> int:
        """Slices of one kind that the GPUs give when they give nothing else."""
        given, number = self.takes(kind)
        return self.gpus * max((m[given] for m in self.multisets), default=0) // number


def supply(cluster: Cluster, board: Board, kinds: Collection[str], *, ideal: bool = False) -> Supply:
    """What the cluster's GPUs of this model can give of these kinds.

    Args:
        cluster: Whose GPUs.
        board: Their model.
        kinds: Of slices.
        ideal: Whether a GPU gives any kinds that have no more compute slices together than it has.
    """
    gpus = sum(g.board.name == board.name for g in cluster.gpus)
    if ideal:
        return Supply(board, gpus, (Counter({_COMPUTE: board.compute_slices}),), ideal=True)
    return Supply(board, gpus, useful_multisets(board, kinds))


def useful_multisets(board: Board, kinds: Collection[str]) -> tuple[Counter[str], ...]:
    """The ways to cut a GPU into these kinds, without those that another one contains.

    A plan needs no other: slices that it does not use are simply not made.
    """
    every = [Counter(m) for m in maximal_multisets(board, kinds)]
    return tuple(m for m in every if not any(m < other for other in every))
