"""How many slices of each kind the GPUs of one model can give together."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import Board, Cluster, Gpu, GpuId, Layout

_COMPUTE = "compute"
"""What all kinds of slices are made of where packing is ideal."""

_ANY = GpuId("", 0)


@dataclass(frozen=True, slots=True)
class Alike:
    """GPUs of one model on which others have the same at the same places.

    Attributes:
        gpus: How many there are.
        multisets: What one GPU can be cut into, kinds not in question left out: what it gives -> how many.
    """

    gpus: int
    multisets: tuple[Counter[str], ...]

    def most(self, given: str) -> int:
        """Of one thing that the GPUs give when they give nothing else."""
        return self.gpus * max((m[given] for m in self.multisets), default=0)


@dataclass(frozen=True, slots=True)
class Supply:
    """The GPUs of one model.

    Attributes:
        board: The model.
        groups: The GPUs, by what others have on them.
        whole: What a GPU can be cut into on which others have nothing.
        ideal: A GPU gives compute slices, and any kinds of MIG instance can be made of them.
    """

    board: Board
    groups: tuple[Alike, ...]
    whole: tuple[Counter[str], ...]
    ideal: bool = False

    def takes(self, kind: str) -> tuple[str, int]:
        """What a slice of this kind takes of what a GPU gives, and how many of them."""
        return (_COMPUTE, self.board.profiles[kind].compute_slices) if self.ideal else (kind, 1)

    def most(self, kind: str) -> int:
        """Slices of one kind that the GPUs give when they give nothing else."""
        given, number = self.takes(kind)
        return sum(group.most(given) for group in self.groups) // number


def supply(cluster: Cluster, board: Board, kinds: Collection[str], *, ideal: bool = False) -> Supply:
    """What the cluster's GPUs of this model can give of these kinds.

    Args:
        cluster: Whose GPUs.
        board: Their model.
        kinds: Of slices.
        ideal: Whether a GPU gives any kinds that have no more compute slices together than others left of it.
    """

    def multisets(foreign: Layout) -> tuple[Counter[str], ...]:
        if ideal:
            return (Counter({_COMPUTE: Gpu(_ANY, board, foreign).compute_slices}),)
        return useful_multisets(board, kinds, foreign)

    alike = Counter(gpu.foreign for gpu in cluster.gpus if gpu.board.name == board.name)
    groups = tuple(Alike(number, multisets(foreign)) for foreign, number in alike.items())
    return Supply(board, groups, multisets(()), ideal)


def useful_multisets(board: Board, kinds: Collection[str], around: Layout = ()) -> tuple[Counter[str], ...]:
    """The ways to cut a GPU into these kinds around what stands there, without those that another one contains.

    A plan needs no other: slices that it does not use are simply not made.
    """
    every = [Counter(m) for m in maximal_multisets(board, kinds, around)]
    return tuple(m for m in every if not any(m < other for other in every))
