"""Where the chosen replicas go: GPUs cut so that as much as possible stays where it runs now."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import chain

from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, GpuId, Layout, Occupancy, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.sharing import SharedSlice
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.solver.program import Draft, Program

Models = tuple[PlacedModel, ...]

Configurations = tuple[Configuration, ...]

Needs = Mapping[str, Mapping[str, Mapping[Models, int]]]
"""Model of GPU -> slice kind -> models in a slice -> slices with them, sorted."""


@dataclass(frozen=True, slots=True)
class _Group:
    """GPUs of one board on which the same runs at the same places, and that can be cut in the same ways."""

    board: Board
    occupancy: Occupancy
    running: Mapping[Placement, Models]
    gpus: tuple[GpuId, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A way to cut one GPU of a group.

    Attributes:
        group: Its number.
        multiset: Slices of each kind that is needed.
        layout: Where they are.
        kept: Slice kind and models in a slice -> slices with them that are there and may stay.
        in_place: Slice kind that is needed -> running MIG instances that the layout keeps.
        recut: True if a running instance has to go.
    """

    group: int
    multiset: Counter[str]
    layout: Layout
    kept: Counter[tuple[str, Models]]
    in_place: Counter[str]
    recut: bool


@dataclass(frozen=True, slots=True)
class PlacementProgram:
    """The program of how many GPUs of each group get which cut, and what its columns mean."""

    program: Program
    cuts: Mapping[int, _Cut]
    groups: tuple[_Group, ...]
    needs: Needs

    def placed(self, values: Sequence[float]) -> tuple[PlannedGpu, ...]:
        """The GPUs in use and what is on them, by id."""
        chosen: list[tuple[GpuId, _Group, Layout]] = []
        free = [list(group.gpus) for group in self.groups]
        for column, cut in self.cuts.items():
            for _ in range(round(values[column])):
                chosen.append((free[cut.group].pop(0), self.groups[cut.group], cut.layout))
        chosen.sort(key=lambda item: item[0])
        planned = []
        for name, kinds in self.needs.items():
            of_board = [item for item in chosen if item[1].board.name == name]
            planned += _filled(of_board, kinds)
        return tuple(sorted(planned, key=lambda gpu: gpu.id))


def placement(
    cluster: Cluster,
    counts: Mapping[Configuration, int],
    gpus: int,
    running: Plan | None,
    shared: Sequence[SharedSlice] = (),
) -> PlacementProgram:
    """Builds the program: as many replicas as possible stay in place, then as many MIG instances, then as many GPUs.

    Args:
        cluster: Whose GPUs.
        counts: Replicas that have a slice to themselves.
        gpus: That suffice for all.
        running: What runs now.
        shared: Slices that others share.
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
        here = {column: cut for column, cut in cuts.items() if groups[cut.group].board.name == name}
        for kind, replicas in by_kind.items():
            need = sum(replicas.values())
            draft.at_least(need, [(column, cut.multiset[kind]) for column, cut in here.items()])
            in_place += _counted(draft, need, [(column, cut.in_place[kind]) for column, cut in here.items()])
            for models, count in replicas.items():
                kept += _counted(draft, count, [(column, cut.kept[kind, models]) for column, cut in here.items()])
    recut = [(column, 1.0) for column, cut in cuts.items() if cut.recut]
    for objective in (kept, in_place, recut, [(column, 1.0) for column in cuts]):
        if objective:
            draft.minimise_count(objective)
    return PlacementProgram(draft.program(), cuts, groups, needs)


def _counted(draft: Draft, most: int, terms: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """The objective term of a quantity that counts up to `most`; none where it is 0 in any case."""
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
    together = ((of.board, of.slice, of.configurations, 1) for of in shared)
    for board, kind, inside, count in chain[tuple[str, str, Configurations, int]](alone, together):
        alike = needs.setdefault(board, {}).setdefault(kind, {})
        models = _sorted(PlacedModel(c.graph, c.task, c.variant, c.instances, c.batch) for c in inside)
        alike[models] = alike.get(models, 0) + count
    return needs


def _sorted(models: Iterable[PlacedModel]) -> Models:
    return tuple(sorted(models, key=astuple))


def running_slices(cluster: Cluster, running: Plan | None) -> dict[GpuId, dict[Placement, Models]]:
    """What a plan that runs has on those of its GPUs that the cluster still has."""
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
        here = {place: _sorted(models) for place, models in slices.get(gpu.id, {}).items()}
        key = (gpu.board.name, gpu.occupancy, tuple(sorted(here.items(), key=lambda kv: kv[0])))
        members.setdefault(key, []).append(gpu.id)
    return tuple(
        _Group(boards[name], occupancy, dict(here), tuple(gpus)) for (name, occupancy, here), gpus in members.items()
    )


def _cuts(index: int, group: _Group, kinds: Mapping[str, Mapping[Models, int]]) -> list[_Cut]:
    """The layouts of which no other gives as many slices of each kind and leaves as much of everything in place."""
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
        if not any(_at_least(other, cut) for other in cuts):
            cuts = [other for other in cuts if not _at_least(cut, other)]
            cuts.append(cut)
    return cuts


def _at_least(one: _Cut, other: _Cut) -> bool:
    """Whether one cut is good for all that another is good for."""
    return (
        one.recut <= other.recut
        and one.multiset >= other.multiset
        and one.in_place >= other.in_place
        and one.kept >= other.kept
    )


def _filled(
    chosen: Sequence[tuple[GpuId, _Group, Layout]], kinds: Mapping[str, Mapping[Models, int]]
) -> list[PlannedGpu]:
    """Puts the replicas into the layouts: where they run, then into instances that stand, then in order."""
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
    for stands in (True, False):
        for gpu, place, models in slots:
            if (gpu, place) not in content and (models is not None) == stands and waiting[place.slice]:
                content[gpu, place] = waiting[place.slice].pop(0)
    planned = []
    for gpu, group, layout in chosen:
        placed = tuple(PlacedSlice(p, content[gpu, p]) for p in sorted(layout) if (gpu, p) in content)
        if placed:
            planned.append(PlannedGpu(gpu, group.board.name, placed))
    return planned
