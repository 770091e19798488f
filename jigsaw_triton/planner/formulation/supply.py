"""How many slices of each kind the GPUs of one model can give together."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import FREE, Board, Cluster, Gpu, GpuId, Occupancy
from jigsaw_triton.planner.candidates.configurations import Replica

Given = str | Replica
"""Unit of supply of a GPU: a kind of slice, or a replica that stays in place (`planner.placement.running_supply`)."""

_COMPUTE = "compute"
"""What all kinds of slices are made of where packing is ideal."""

_ANY = GpuId("", 0)


@dataclass(frozen=True, slots=True)
class Alike:
    """GPUs of one model that can be cut in the same ways, since the same stands on them.

    Attributes:
        gpus: How many there are.
        multisets: What one GPU can be cut into, kinds not in question left out: what it gives -> how many.
    """

    gpus: int
    multisets: tuple[Counter[Given], ...]

    def most(self, given: Given) -> int:
        """Of one thing that the GPUs give when they give nothing else."""
        return self.gpus * max((m[given] for m in self.multisets), default=0)


@dataclass(frozen=True, slots=True)
class Supply:
    """The GPUs of one model.

    Attributes:
        board: The model.
        groups: The GPUs, by what stands on them that matters.
        whole: What a GPU can be cut into on which others have nothing.
        ideal: A GPU gives compute slices, and any kinds of MIG instance can be made of them.
    """

    board: Board
    groups: tuple[Alike, ...]
    whole: tuple[Counter[Given], ...]
    ideal: bool = False

    def takes(self, wanted: Given) -> tuple[Given, int]:
        """What a slice of a kind, or a replica that stays, takes of what a GPU gives, and how many of them."""
        if self.ideal and isinstance(wanted, str):
            return _COMPUTE, self.board.profiles[wanted].compute_slices
        return wanted, 1

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

    def multisets(occupancy: Occupancy) -> tuple[Counter[Given], ...]:
        if ideal:
            return (Counter[Given]({_COMPUTE: Gpu(_ANY, board, occupancy.foreign).compute_slices}),)
        return useful_multisets(board, kinds, occupancy)

    alike = Counter(gpu.occupancy for gpu in cluster.gpus if gpu.board.name == board.name)
    groups = tuple(Alike(number, multisets(occupancy)) for occupancy, number in alike.items())
    return Supply(board, groups, multisets(FREE), ideal)


def useful_multisets(board: Board, kinds: Collection[str], occupancy: Occupancy = FREE) -> tuple[Counter[Given], ...]:
    """The ways to cut a GPU into these kinds around what stands there, without those that another one contains.

    A plan needs no other: slices that it does not use are simply not made.
    """
    found = maximal_multisets(board, occupancy.kinds(board, kinds), occupancy.foreign)
    return undominated(Counter[Given](m) for m in found)


def undominated(multisets: Iterable[Counter[Given]]) -> tuple[Counter[Given], ...]:
    """Those of which no other gives as much of everything, each once."""
    every = list({frozenset(m.items()): m for m in multisets}.values())
    return tuple(m for m in every if not any(m < other for other in every))
