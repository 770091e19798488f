"""Placement of the chosen replicas: cuts GPUs so that as many replicas as possible stay where they run."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import compress

import numpy as np

from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, GpuId, Layout, Occupancy, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.pools import SharedSlice
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.solver.program import Draft, Program

Models = tuple[PlacedModel, ...]

Configurations = tuple[Configuration, ...]

_NEAR_GAP = 1e-4
"""Gap of the megabytes a second on the gateway's node, relative to all and to those of a slice. A convention."""

Needs = Mapping[str, Mapping[str, Mapping[Models, int]]]
"""Model of GPU -> kind of slice -> models in a slice -> number of such slices, sorted."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Interchangeable GPUs: one board, the same models running at the same placements, and the same occupancy.

    All of them are on the gateway's node (`near`), or none.
    """

    board: Board
    near: bool
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
    """The program that decides how many GPUs of each group get which cut, and the meaning of its columns.

    Attributes:
        program: The program.
        cuts: Column -> cut of which it is the number.
        groups: Groups of GPUs.
        needs: Slices that are needed.
        near: (model of GPU, kind of slice, models in it) -> column of the number of such slices on the gateway's node;
            empty if all GPUs are as near.
    """

    program: Program
    cuts: Mapping[int, _Cut]
    groups: tuple[_Group, ...]
    needs: Needs
    near: Mapping[tuple[str, str, Models], int]

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
            for near in (True, False) if self.near else (None,):
                own = [item for item in chosen if item[1].board.name == name and near in (None, item[1].near)]
                planned += _filled(own, kinds if near is None else self._part(name, kinds, near, values))
        return tuple(sorted(planned, key=lambda gpu: gpu.id))

    def _part(
        self, board: str, kinds: Mapping[str, Mapping[Models, int]], near: bool, values: Sequence[float]
    ) -> dict[str, dict[Models, int]]:
        """Returns the slices that are needed on the gateway's node, or on the others."""
        part: dict[str, dict[Models, int]] = {}
        for kind, replicas in kinds.items():
            on_it = {models: round(values[self.near[board, kind, models]]) for models in replicas}
            part[kind] = on_it if near else {models: count - on_it[models] for models, count in replicas.items()}
        return part


def placement(
    cluster: Cluster,
    counts: Mapping[Configuration, int],
    gpus: int,
    running: Plan | None,
    shared: Sequence[SharedSlice] = (),
    call_megabytes: Mapping[tuple[str, str, str], float] | None = None,
) -> PlacementProgram:
    """Builds the program: keep most replicas in place, then most MIG instances, then recut and use the fewest GPUs.

    Among equal placements, the replicas that move most megabytes a second are on the gateway's node, for all tensors
    pass through the gateway: calls on its node go through shared memory, and others through a network.

    Args:
        cluster: Cluster of the GPUs.
        counts: Configuration -> number of replicas that have a slice to themselves.
        gpus: Number of GPUs that suffices for all.
        running: Plan that runs now.
        shared: Shared slices.
        call_megabytes: (Graph, task, variant) -> megabytes that a call moves; None if that does not matter.
    """
    needs = _needs(counts, shared)
    groups = _groups(cluster, running)
    moved = _moved(counts, shared, call_megabytes or {}) if len({group.near for group in groups}) > 1 else {}
    near: dict[tuple[str, str, Models], int] = {}
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
        for kind, replicas in by_kind.items():
            here = {models: draft.integer(count) for models, count in replicas.items()} if moved else {}
            near |= {(name, kind, models): column for models, column in here.items()}
            for side, needed in _sides(own, groups, replicas, here):
                total = _Amount(
                    sum(amount.constant for amount in needed.values()),
                    tuple(term for amount in needed.values() for term in amount.terms),
                )
                slots = [(column, cut.multiset[kind]) for column, cut in side.items()]
                draft.at_least(total.constant, [*slots, *((column, -k) for column, k in total.terms)])
                in_place += _counted(draft, total, [(column, cut.in_place[kind]) for column, cut in side.items()])
                for models, amount in needed.items():
                    stay = [(column, cut.kept[kind, models]) for column, cut in side.items()]
                    kept += _counted(draft, amount, stay)
    recut = [(column, 1.0) for column, cut in cuts.items() if cut.recut]
    for objective in (kept, in_place, recut, [(column, 1.0) for column in cuts]):
        if objective:
            draft.minimise_count(objective)
    most = max(moved.values(), default=0.0)
    if most > 0:
        nearer = [(column, -moved[key] / most) for key, column in near.items()]
        draft.minimise(nearer, gap=_NEAR_GAP, relative_gap=_NEAR_GAP)
    return PlacementProgram(draft.program(), cuts, groups, needs, near)


def _moved(
    counts: Mapping[Configuration, int],
    shared: Sequence[SharedSlice],
    call_megabytes: Mapping[tuple[str, str, str], float],
) -> dict[tuple[str, str, Models], float]:
    """Returns the megabytes a second that a slice moves with these models, by model of GPU and kind of slice."""
    moved: dict[tuple[str, str, Models], float] = {}
    for board, kind, inside, _ in _slices(counts, shared):
        megabytes = sum(c.throughput_rps * call_megabytes.get((c.graph, c.task, c.variant), 0.0) for c in inside)
        key = (board, kind, _models(inside))
        moved[key] = max(megabytes, moved.get(key, 0.0))
    return moved


@dataclass(frozen=True, slots=True)
class _Amount:
    """A number of slices: a constant, and columns with their coefficients."""

    constant: int
    terms: tuple[tuple[int, float], ...] = ()


def _sides(
    cuts: Mapping[int, _Cut], groups: Sequence[_Group], replicas: Mapping[Models, int], columns: Mapping[Models, int]
) -> Iterator[tuple[Mapping[int, _Cut], Mapping[Models, _Amount]]]:
    """Yields the cuts on the gateway's node and those elsewhere, each with the slices that are needed there.

    Args:
        cuts: Cuts of GPUs of one board.
        groups: Groups of GPUs.
        replicas: Slices of one kind that are needed, by their models.
        columns: Columns of the numbers of them on the gateway's node; empty if all GPUs are as near.
    """
    if not columns:
        yield cuts, {models: _Amount(count) for models, count in replicas.items()}
        return
    here = {column: cut for column, cut in cuts.items() if groups[cut.group].near}
    yield here, {models: _Amount(0, ((columns[models], 1.0),)) for models in replicas}
    elsewhere = {column: cut for column, cut in cuts.items() if not groups[cut.group].near}
    yield elsewhere, {models: _Amount(count, ((columns[models], -1.0),)) for models, count in replicas.items()}


def _counted(draft: Draft, most: _Amount, terms: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns the objective term of a sum that counts only up to `most`; empty if the sum is always 0."""
    terms = [(column, k) for column, k in terms if k]
    if not terms:
        return []
    column = draft.integer(None if most.terms else most.constant)
    if most.terms:
        draft.at_most(most.constant, [(column, 1), *((c, -k) for c, k in most.terms)])
    draft.at_most(0, [(column, 1), *((c, -k) for c, k in terms)])
    return [(column, -1.0)]


def _needs(
    counts: Mapping[Configuration, int], shared: Sequence[SharedSlice]
) -> dict[str, dict[str, dict[Models, int]]]:
    needs: dict[str, dict[str, dict[Models, int]]] = {}
    for board, kind, inside, count in _slices(counts, shared):
        alike = needs.setdefault(board, {}).setdefault(kind, {})
        models = _models(inside)
        alike[models] = alike.get(models, 0) + count
    return needs


def _slices(
    counts: Mapping[Configuration, int], shared: Sequence[SharedSlice]
) -> Iterator[tuple[str, str, Configurations, int]]:
    """Yields the model of GPU, kind, configurations and number of slices."""
    for c, count in sorted(counts.items()):
        yield c.board, c.slice, (c,), count
    for s in shared:
        yield s.board, s.slice, s.configurations, 1


def _models(inside: Configurations) -> Models:
    return _sorted(PlacedModel(c.graph, c.task, c.variant, c.instances, c.batch) for c in inside)


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
    members: dict[tuple[str, bool, Occupancy, tuple[tuple[Placement, Models], ...]], list[GpuId]] = {}
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    for gpu in cluster.gpus:
        present = {place: _sorted(models) for place, models in slices.get(gpu.id, {}).items()}
        near = gpu.id.node == cluster.gateway_node
        key = (gpu.board.name, near, gpu.occupancy, tuple(sorted(present.items(), key=lambda kv: kv[0])))
        members.setdefault(key, []).append(gpu.id)
    return tuple(
        _Group(boards[name], near, occupancy, dict(present), tuple(gpus))
        for (name, near, occupancy, present), gpus in members.items()
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
