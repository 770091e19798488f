"""Supply of slices: the numbers of slices of each kind that the GPUs of one model can provide together."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import FREE, Board, Cluster, Gpu, GpuId, Occupancy
from jigsaw_triton.planner.candidates.configurations import Replica

SupplyUnit = str | Replica
"""Unit that a GPU supplies: a kind of slice, or a replica that stays in place (`planner.placement.running_supply`)."""

_COMPUTE = "compute"
"""Unit of which all kinds of slices consist with ideal packing."""

_ANY = GpuId("", 0)
"""Placeholder id: only the free compute slices of the GPU matter."""


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """Interchangeable GPUs of one model, which can be cut in the same ways.

    Attributes:
        gpus: Number of GPUs.
        multisets: Cuts of one GPU, as unit -> number of units; units that nobody needs are omitted.
    """

    gpus: int
    multisets: tuple[Counter[SupplyUnit], ...]

    def most(self, unit: SupplyUnit) -> int:
        """Returns the largest number of this unit that the GPUs can supply if they supply nothing else."""
        return self.gpus * max((m[unit] for m in self.multisets), default=0)


@dataclass(frozen=True, slots=True)
class Supply:
    """Supply of the GPUs of one model.

    Attributes:
        board: Model of the GPUs.
        groups: Groups of interchangeable GPUs.
        whole: Cuts of a GPU without foreign instances.
        ideal: True if a GPU supplies compute slices, from which any kinds of MIG instance can be made.
    """

    board: Board
    groups: tuple[GpuGroup, ...]
    whole: tuple[Counter[SupplyUnit], ...]
    ideal: bool = False

    def takes(self, wanted: SupplyUnit) -> tuple[SupplyUnit, int]:
        """Returns the unit, and the number of it, that a slice of this kind or a replica that stays takes."""
        if self.ideal and isinstance(wanted, str):
            return _COMPUTE, self.board.profiles[wanted].compute_slices
        return wanted, 1

    def most(self, kind: str) -> int:
        """Returns the largest number of slices of one kind that the GPUs can supply if they supply nothing else."""
        unit, number = self.takes(kind)
        return sum(group.most(unit) for group in self.groups) // number


def supply(cluster: Cluster, board: Board, kinds: Collection[str], *, ideal: bool = False) -> Supply:
    """Returns the supply of these kinds of slices by the cluster's GPUs of one model.

    Args:
        cluster: Cluster of the GPUs.
        board: Model of the GPUs.
        kinds: Kinds of slices.
        ideal: True if any kinds fit a GPU as long as it has enough compute slices that are not foreign.
    """

    def multisets(occupancy: Occupancy) -> tuple[Counter[SupplyUnit], ...]:
        if ideal:
            return (Counter[SupplyUnit]({_COMPUTE: Gpu(_ANY, board, occupancy.foreign).compute_slices}),)
        return useful_multisets(board, kinds, occupancy)

    numbers = Counter(gpu.occupancy for gpu in cluster.gpus if gpu.board.name == board.name)
    groups = tuple(GpuGroup(number, multisets(occupancy)) for occupancy, number in numbers.items())
    return Supply(board, groups, multisets(FREE), ideal)


def useful_multisets(
    board: Board, kinds: Collection[str], occupancy: Occupancy = FREE
) -> tuple[Counter[SupplyUnit], ...]:
    """Returns the ways to cut a GPU into these kinds around foreign instances, without cuts that another contains.

    A plan needs no others, because slices that it does not use are simply not created.
    """
    found = maximal_multisets(board, occupancy.kinds(board, kinds), occupancy.foreign)
    return undominated(Counter[SupplyUnit](m) for m in found)


def undominated(multisets: Iterable[Counter[SupplyUnit]]) -> tuple[Counter[SupplyUnit], ...]:
    """Drops duplicates and multisets that another one contains."""
    every = list({frozenset(m.items()): m for m in multisets}.values())
    return tuple(m for m in every if not any(m < other for other in every))
