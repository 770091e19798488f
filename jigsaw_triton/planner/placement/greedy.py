"""Greedy placement of replicas, which may fail to place all of them.

The paper's formulation places its replicas like this after solving, and so does the first plan of a search. It is first
fit decreasing: in order of slice size, largest first, each replica goes to the first GPU that can be cut to hold it in
addition to the replicas that it already has. The starts of slices stay open until the end, so that no replica fails
because an earlier one was placed badly within its GPU.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from jigsaw_triton.errors import UnplacedError
from jigsaw_triton.gpus.layouts import maximal_layouts, maximal_multisets
from jigsaw_triton.gpus.model import SLICES, Board, Cluster, Gpu, GpuId
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, PlannedGpu


@dataclass(frozen=True, slots=True)
class Greedy:
    """Result of a greedy placement.

    Attributes:
        gpus: GPUs in use, sorted by id.
        unplaced: Configuration -> number of replicas without a place, above 0.
    """

    gpus: tuple[PlannedGpu, ...]
    unplaced: Mapping[Configuration, int]

    @property
    def unplaced_slices(self) -> int:
        """Compute slices of the unplaced replicas."""
        return sum(n * c.compute_slices for c, n in self.unplaced.items())


def greedy(
    cluster: Cluster,
    counts: Mapping[Configuration, int],
    staying: Mapping[GpuId, tuple[PlacedSlice, ...]] | None = None,
) -> Greedy:
    """Places replicas on the GPUs of their boards.

    Args:
        cluster: Cluster with GPUs sorted by id.
        counts: Configuration -> number of replicas.
        staying: Slices that stay where they are, by GPU. GPUs with such slices are filled before the others.
    """
    staying = staying or {}
    planned: list[PlannedGpu] = []
    unplaced: dict[Configuration, int] = {}
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    for name, board in boards.items():
        gpus = [Filling(gpu, staying.get(gpu.id, ())) for gpu in cluster.gpus if gpu.board.name == name]
        gpus.sort(key=lambda gpu: not gpu.staying)
        unplaced |= _first_fit(gpus, board, {c: n for c, n in counts.items() if c.board == name})
        planned += [gpu.planned() for gpu in gpus if gpu.models or gpu.staying]
    return Greedy(tuple(sorted(planned, key=lambda gpu: gpu.id)), unplaced)


def everything_placed(cluster: Cluster, counts: Mapping[Configuration, int]) -> tuple[PlannedGpu, ...]:
    """Places all replicas and returns the GPUs in use; arguments as for `greedy`.

    Raises:
        UnplacedError: Some replicas could not be placed.
    """
    found = greedy(cluster, counts)
    if found.unplaced:
        replicas = sum(found.unplaced.values())
        listed = ", ".join(f"{n} of {c.graph}/{c.task} {c.variant} on {c.slice}" for c, n in found.unplaced.items())
        needed = sum(n * c.compute_slices for c, n in counts.items())
        raise UnplacedError(
            [
                f"the cluster has the {needed} compute slices that the paper's formulation needs, but its greedy "
                f"placement finds no place for {replicas} of {sum(counts.values())} replicas, {found.unplaced_slices} "
                f"compute slices: {listed}"
            ],
            hint="lower the demand, add GPUs, or use the exact formulation, whose plans can always be placed",
        )
    return found.gpus


class Filling:
    """A GPU and the replicas placed on it so far.

    Args:
        gpu: The GPU.
        staying: Slices that it has already.
    """

    def __init__(self, gpu: Gpu, staying: tuple[PlacedSlice, ...]) -> None:
        self._gpu, self.staying = gpu, staying
        self._kinds = gpu.occupancy.kinds(gpu.board, SLICES)
        self._around = (*gpu.foreign, *sorted(placed.placement for placed in staying))
        self.models: list[tuple[str, PlacedModel]] = []

    @cached_property
    def _cuts(self) -> list[Counter[str]]:
        return [Counter(m) for m in maximal_multisets(self._gpu.board, self._kinds, self._around)]

    def take(self, kind: str, model: PlacedModel) -> bool:
        """Adds a replica if it fits; returns True if it does."""
        wanted = Counter(k for k, _ in self.models)
        wanted[kind] += 1
        if not any(wanted <= cut for cut in self._cuts):
            return False
        self.models.append((kind, model))
        return True

    def planned(self) -> PlannedGpu:
        """Returns the GPU with a layout that has a slice for each replica."""
        wanted = Counter(kind for kind, _ in self.models)
        layouts = maximal_layouts(self._gpu.board, self._kinds, self._around) if wanted else ()
        layout = next((found for found in layouts if wanted <= Counter(place.slice for place in found)), ())
        free = {kind: [place for place in layout if place.slice == kind] for kind in wanted}
        added = (PlacedSlice(free[kind].pop(0), (model,)) for kind, model in self.models)
        placed = sorted((*self.staying, *added), key=lambda s: s.placement)
        return PlannedGpu(self._gpu.id, self._gpu.board.name, tuple(placed))


def _first_fit(gpus: list[Filling], board: Board, counts: Mapping[Configuration, int]) -> dict[Configuration, int]:
    """Fills the GPUs and returns the replicas that could not be placed."""

    def size(c: Configuration) -> tuple[int, int]:
        profile = board.profiles[c.slice]
        return profile.memory_slices, profile.compute_slices

    unplaced: dict[Configuration, int] = {}
    # GPUs only get fuller: one without room for a kind of slice will not have any later.
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
