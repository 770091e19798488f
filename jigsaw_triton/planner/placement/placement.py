"""Placement of the chosen replicas: cuts GPUs so that as many replicas as possible stay where they run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import chain, compress

import numpy as np

from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, GpuId, Layout, Occupancy, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.sharing import SharedSlice
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.solver.program import Draft, Program

Models = tuple[PlacedModel, ...]

Configurations = tuple[Configuration, ...]

Needs = Mapping[str, Mapping[str, Mapping[Models, int]]]
"""Model of GPU -> kind of slice -> models in a slice -> number of such slices, sorted."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Interchangeable GPUs: one board, the same models running at the same placements, and the same occupancy."""

    board: Board
    occupancy: Occupancy
    running: Mapping[Placement, Models]
    gpus: tuple[GpuId, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A way to cut one GPU of a group.

    Attributes:
        group: Index of the group.
        multiset: Number of slices of each kind that is needed.
        layout: Placements of the slices.
        kept: (kind of slice, models in it) -> number of such running slices that may stay.
        in_place: Kind of slice that is needed -> number of running MIG instances that the layout keeps.
        recut: True if a running instance must be removed.
    """

    group: int
    multiset: Counter[str]
    layout: Layout
    kept: Counter[tuple[str, Models]]
    in_place: Counter[str]
    recut: bool


@dataclass(frozen=True, slots=True)
class PlacementProgram:
    """The program that decides how many GPUs of each group get which cut, and the meaning of its columns."""

    program: Program
    cuts: Mapping[int, _Cut]
    groups: tuple[_Group, ...]
    needs: Needs

    def placed(self, values: Sequence[float]) -> tuple[PlannedGpu, ...]:
        """Returns the GPUs in use with their models, sorted by id."""
        chosen: list[tuple[GpuId, _Group, Layout]] = []
        free = [list(group.gpus) for group in self.groups]
        for column, cut in self.cuts.items():
            for _ in range(round(values[column])):
                chosen.append((free[cut.group].pop(0), self.groups[cut.group], cut.layout))
        chosen.sort(key=lambda item: item[0])
        planned = []
        for name, kinds in self.needs.items():
            own = [item for item in chosen if item[1].board.name == name]
            planned += _filled(own, kinds)
        return tuple(sorted(planned, key=lambda gpu: gpu.id))


def placement(
    cluster: Cluster,
    counts: Mapping[Configuration, int],
    gpus: int,
    running: Plan | None,
    shared: Sequence[SharedSlice] = (),
) -> PlacementProgram:
    """Builds the program: keep most replicas in place, then most MIG instances, then recut and use the fewest GPUs.

    Args:
        cluster: Cluster of the GPUs.
        counts: Configuration -> number of replicas that have a slice to themselves.
        gpus: Number of GPUs that suffices for all.
        running: Plan that runs now.
        shared: Shared slices.
    """
    needs = _needs(counts, shared)
    groups = _groups(cluster, running)
    draft, cuts = Draft(), dict[int, _Cut]()
    for i, group in enumerate(groups):
        kinds = needs.get(group.board.name, {})
        columns = {draft.integer(len(group.gpus)): cut for cut in _cuts(i, group, kinds)}
        cuts |= columns
        draft.at_most(len(group.gpus), [(column, 1) for column in columns])
    draft.at_most(gpus, [(column, 1) for column in cuts])
    kept, in_place = list[tuple[int, float]](), list[tuple[int, float]]()
    for name, by_kind in needs.items():
        own = {column: cut for column, cut in cuts.items() if groups[cut.group].board.name == name}
        keeping: dict[tuple[str, Models], list[tuple[int, float]]] = {}
        for column, cut in own.items():
            for replica, number in cut.kept.items():
                keeping.setdefault(replica, []).append((column, number))
        for kind, replicas in by_kind.items():
            need = sum(replicas.values())
            draft.at_least(need, [(column, cut.multiset[kind]) for column, cut in own.items()])
            in_place += _counted(draft, need, [(column, cut.in_place[kind]) for column, cut in own.items()])
            for models, count in replicas.items():
                kept += _counted(draft, count, keeping.get((kind, models), ()))
    recut = [(column, 1.0) for column, cut in cuts.items() if cut.recut]
    for objective in (kept, in_place, recut, [(column, 1.0) for column in cuts]):
        if objective:
            draft.minimise_count(objective)
    return PlacementProgram(draft.program(), cuts, groups, needs)


def _counted(draft: Draft, most: int, terms: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns the objective term of a sum that counts only up to `most`; empty if the sum is always 0."""
    terms = [(column, k) for column, k in terms if k]
    if not terms:
        return []
    column = draft.integer(most)
    draft.at_most(0, [(column, 1), *((c, -k) for c, k in terms)])
    return [(column, -1.0)]


def _needs(
    counts: Mapping[Configuration, int], shared: Sequence[SharedSlice]
) -> dict[str, dict[str, dict[Models, int]]]:
    needs: dict[str, dict[str, dict[Models, int]]] = {}
    alone = ((c.board, c.slice, (c,), count) for c, count in sorted(counts.items()))
    together = ((s.board, s.slice, s.configurations, 1) for s in shared)
    for board, kind, inside, count in chain[tuple[str, str, Configurations, int]](alone, together):
        alike = needs.setdefault(board, {}).setdefault(kind, {})
        models = _sorted(PlacedModel(c.graph, c.task, c.variant, c.instances, c.batch) for c in inside)
        alike[models] = alike.get(models, 0) + count
    return needs


def _sorted(models: Iterable[PlacedModel]) -> Models:
    return tuple(sorted(models, key=astuple))


def running_slices(cluster: Cluster, running: Plan | None) -> dict[GpuId, dict[Placement, Models]]:
    """Returns the slices and models of a running plan on those of its GPUs that the cluster still has."""
    boards = {gpu.id: gpu.board.name for gpu in cluster.gpus}
    return {
        gpu.id: {placed.placement: placed.models for placed in gpu.layout}
        for gpu in (running.gpus if running else ())
        if boards.get(gpu.id) == gpu.model
    }


def _groups(cluster: Cluster, running: Plan | None) -> tuple[_Group, ...]:
    slices = running_slices(cluster, running)
    members: dict[tuple[str, Occupancy, tuple[tuple[Placement, Models], ...]], list[GpuId]] = {}
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    for gpu in cluster.gpus:
        present = {place: _sorted(models) for place, models in slices.get(gpu.id, {}).items()}
        key = (gpu.board.name, gpu.occupancy, tuple(sorted(present.items(), key=lambda kv: kv[0])))
        members.setdefault(key, []).append(gpu.id)
    return tuple(
        _Group(boards[name], occupancy, dict(present), tuple(gpus))
        for (name, occupancy, present), gpus in members.items()
    )


def _cuts(index: int, group: _Group, kinds: Mapping[str, Mapping[Models, int]]) -> list[_Cut]:
    """Returns the undominated cuts: no other has as many slices of each kind and keeps as much in place."""
    cuts: list[_Cut] = []
    useful = {*kinds, *(p.slice for p in group.running)} if kinds else set[str]()
    useful &= group.occupancy.kinds(group.board, useful)
    for layout in maximal_layouts(group.board, useful, group.occupancy.foreign) if useful else ():
        staying = [p for p in layout if p in group.running]
        needed = [p for p in staying if p.slice in kinds]
        kept = Counter((p.slice, group.running[p]) for p in needed if group.running[p] in kinds[p.slice])
        cut = _Cut(
            group=index,
            multiset=Counter(p.slice for p in layout if p.slice in kinds),
            layout=layout,
            kept=kept,
            in_place=Counter(p.slice for p in needed),
            recut=len(staying) < len(group.running),
        )
        cuts.append(cut)
    return _undominated(cuts) if cuts else []


def _undominated(cuts: Sequence[_Cut]) -> list[_Cut]:
    """Returns the cuts than which no other is at least as good in every respect; of equal ones, the first."""
    kinds, kept = sorted({k for c in cuts for k in c.multiset}), list({k for c in cuts for k in c.kept})
    merits = np.array(
        [
            [not c.recut, *(c.multiset[k] for k in kinds), *(c.in_place[k] for k in kinds), *(c.kept[k] for k in kept)]
            for c in cuts
        ]
    )
    at_least = (merits[:, None] >= merits[None]).all(axis=2)
    earlier = np.triu(np.ones_like(at_least), 1)
    beaten = (at_least & (~at_least.T | earlier)).any(axis=0)
    return list(compress(cuts, ~beaten))


def _filled(
    chosen: Sequence[tuple[GpuId, _Group, Layout]], kinds: Mapping[str, Mapping[Models, int]]
) -> list[PlannedGpu]:
    """Puts replicas into the layouts: first where they run, then into existing instances, then in order."""
    left = {kind: Counter(replicas) for kind, replicas in kinds.items()}
    content: dict[tuple[GpuId, Placement], Models] = {}
    slots = [
        (gpu, place, group.running.get(place))
        for gpu, group, layout in chosen
        for place in layout
        if place.slice in kinds
    ]
    for gpu, place, models in slots:
        if models is not None and left[place.slice][models] > 0:
            content[gpu, place] = models
            left[place.slice][models] -= 1
    waiting = {kind: [m for m in replicas for _ in range(left[kind][m])] for kind, replicas in kinds.items()}
    for exists in (True, False):
        for gpu, place, models in slots:
            if (gpu, place) not in content and (models is not None) == exists and waiting[place.slice]:
                content[gpu, place] = waiting[place.slice].pop(0)
    planned = []
    for gpu, group, layout in chosen:
        placed = tuple(PlacedSlice(p, content[gpu, p]) for p in sorted(layout) if (gpu, p) in content)
        if placed:
            planned.append(PlannedGpu(gpu, group.board.name, placed))
    return planned
