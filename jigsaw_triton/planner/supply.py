"""How many slices of each kind the GPUs of one model can give together."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import Board, Cluster


@dataclass(frozen=True, slots=True)
class Supply:
    """The GPUs of one model.

    Attributes:
        board: The model.
        gpus: How many there are.
        multisets: What one GPU can be cut into, kinds not in question left out: slice kind -> how many.
    """

    board: Board
    gpus: int
    multisets: tuple[Counter[str], ...]

    def most(self, kind: str) -> int:
        """Slices of one kind that the GPUs give when they give nothing else."""
        return self.gpus * max((m[kind] for m in self.multisets), default=0)


def supply(cluster: Cluster, board: Board, kinds: Collection[str]) -> Supply:
    """What the cluster's GPUs of this model can give of these kinds."""
    return Supply(board, sum(g.board.name == board.name for g in cluster.gpus), useful_multisets(board, kinds))


def useful_multisets(board: Board, kinds: Collection[str]) -> tuple[Counter[str], ...]:
    """The ways to cut a GPU into these kinds, without those that another one contains.

    A plan needs no other: slices that it does not use are simply not made.
    """
    every = [Counter(m) for m in maximal_multisets(board, kinds)]
    return tuple(m for m in every if not any(m < other for other in every))
