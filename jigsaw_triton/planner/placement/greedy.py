"""The placement of the paper's formulation: greedy, after the fact, and not always of everything.

First fit, the largest slices first: each replica goes onto the first GPU that can be cut to hold it beside what it
holds already. Where a slice starts is left open until all is placed, so nothing fails for having been put badly.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.errors import UnplacedError
from jigsaw_triton.gpus.layouts import maximal_layouts, maximal_multisets
from jigsaw_triton.gpus.model import SLICES, Board, Cluster, Gpu
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, PlannedGpu


@dataclass(frozen=True, slots=True)
class Greedy:
    """What came of it.

    Attributes:
        gpus: In use, by id.
        unplaced: Replicas that found no place; none of them 0.
    """

    gpus: tuple[PlannedGpu, ...]
    unplaced: Mapping[Configuration, int]

    @property
    def unplaced_slices(self) -> int:
        """Compute slices that they would have taken."""
        return sum(n * c.compute_slices for c, n in self.unplaced.items())


def greedy(cluster: Cluster, counts: Mapping[Configuration, int]) -> Greedy:
    """Places replicas on the GPUs of their boards.

    Args:
        cluster: Whose GPUs, sorted by id.
        counts: Replicas.
    """
    planned: list[PlannedGpu] = []
    unplaced: dict[Configuration, int] = {}
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    for name, board in boards.items():
        gpus = [_Filling(gpu) for gpu in cluster.gpus if gpu.board.name == name]
        unplaced |= _first_fit(gpus, board, {c: n for c, n in counts.items() if c.board == name})
        planned += [gpu.planned() for gpu in gpus if gpu.models]
    return Greedy(tuple(sorted(planned, key=lambda gpu: gpu.id)), unplaced)


def everything_placed(cluster: Cluster, counts: Mapping[Configuration, int]) -> tuple[PlannedGpu, ...]:
    """The GPUs in use, arguments as above.

    Raises:
        UnplacedError: Some replicas found no place.
    """
    found = greedy(cluster, counts)
    if found.unplaced:
        replicas = sum(found.unplaced.values())
        listed = ", ".join(f"{n} of {c.graph}/{c.task} {c.variant} on {c.slice}" for c, n in found.unplaced.items())
        needed = sum(n * c.compute_slices for c, n in counts.items())
        raise UnplacedError(
            [
                f"the {needed} compute slices that the paper's formulation asks for are there, but its greedy "
                f"placement finds no place for {replicas} of {sum(counts.values())} replicas, {found.unplaced_slices} "
                f"compute slices: {listed}"
            ],
            hint="lower the demand, give it more GPUs, or plan with the exact formulation, which places what it plans",
        )
    return found.gpus


class _Filling:
    """A GPU and what it holds so far.

    Args:
        gpu: Which.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._kinds = gpu.occupancy.kinds(gpu.board, SLICES)
        self._cuts = [Counter(m) for m in maximal_multisets(gpu.board, self._kinds, gpu.foreign)]
        self.models: list[tuple[str, PlacedModel]] = []

    def take(self, kind: str, model: PlacedModel) -> bool:
        """Takes a replica, if there is room."""
        wanted = Counter(k for k, _ in self.models)
        wanted[kind] += 1
        if not any(wanted <= cut for cut in self._cuts):
            return False
        self.models.append((kind, model))
        return True

    def planned(self) -> PlannedGpu:
        """The GPU cut so that all that it holds has its slice."""
        wanted = Counter(kind for kind, _ in self.models)
        layouts = maximal_layouts(self._gpu.board, self._kinds, self._gpu.foreign)
        layout = next(found for found in layouts if wanted <= Counter(place.slice for place in found))
        free = {kind: [place for place in layout if place.slice == kind] for kind in wanted}
        placed = sorted((PlacedSlice(free[k].pop(0), (m,)) for k, m in self.models), key=lambda s: s.placement)
        return PlannedGpu(self._gpu.id, self._gpu.board.name, tuple(placed))


def _first_fit(gpus: list[_Filling], board: Board, counts: Mapping[Configuration, int]) -> dict[Configuration, int]:
    """Fills the GPUs; what found no place."""

    def size(c: Configuration) -> tuple[int, int]:
        profile = board.profiles[c.slice]
        return profile.memory_slices, profile.compute_slices

    unplaced: dict[Configuration, int] = {}
    # GPUs only fill up: one without room for a kind of slice has none later.
    first: Counter[str] = Counter()
    for c in sorted(counts, key=lambda c: (*(-n for n in size(c)), c)):
        model = PlacedModel(c.graph, c.task, c.variant, c.instances, c.batch)
        left = counts[c]
        while left and first[c.slice] < len(gpus):
            if gpus[first[c.slice]].take(c.slice, model):
                left -= 1
            else:
                first[c.slice] += 1
        if left:
            unplaced[c] = left
    return unplaced
