"""Placement keeps as many running replicas in place as possible."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan, PlannedGpu
from jigsaw_triton.planner.placement.placement import placement
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.planner.transition.moves import memory_slices
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import cluster

CPU = board("cpu")
LAYOUTS = maximal_layouts(CPU, ("1g", "2g", "3g", "4g"))

Place = tuple[GpuId, Placement]
Running = dict[Place, PlacedModel]


def counts_of(needs: Mapping[tuple[str, str], int]) -> dict[Configuration, int]:
    """Returns numbers of replicas by configuration, from those by (slice, task)."""
    return {
        Configuration("chain", task, "v0", "cpu", kind, 1, 1, CPU.profiles[kind].compute_slices, 10.0, 10.0, 0.0): n
        for (kind, task), n in needs.items()
    }


def placed(highs: SolverProcess, needs: Mapping[tuple[str, str], int], gpus: int, before: Plan) -> Plan:
    program = placement(cluster(gpus), counts_of(needs), gpus, before)
    after = program.placed(highs.solve(program.program, 10).values)
    return Plan({}, after, 0, 0, len(after), "AST", "exact", "2p95", before.solver)


def replicas(gpus: Iterable[PlannedGpu]) -> Running:
    return {(gpu.id, placed.placement): placed.models[0] for gpu in gpus for placed in gpu.layout}


def needs_of(gpus: Iterable[PlannedGpu]) -> Counter[tuple[str, str]]:
    return Counter((p.slice, model.task) for (_, p), model in replicas(gpus).items())


def kept(running: Running, needs: Mapping[tuple[str, str], int], cuts: Collection[Place]) -> tuple[int, int, int]:
    """Returns the replicas and MIG instances that can stay with these layouts, and minus the repartitioned GPUs."""
    stand = [(place, running[place]) for place in cuts if place in running]
    models = Counter((place[1].slice, model.task) for place, model in stand)
    kinds = Counter(place[1].slice for place, _ in stand)
    recut = len({gpu for gpu, _ in running.keys() - set(cuts)})
    return (models & Counter(needs)).total(), (kinds & by_kind(needs)).total(), -recut


def by_kind(needs: Mapping[tuple[str, str], int]) -> Counter[str]:
    wanted = Counter[str]()
    for (kind, _), n in needs.items():
        wanted[kind] += n
    return wanted


def recut(before: Plan, after: Plan) -> int:
    """Returns the GPUs on which an instance replaces another."""
    gone = {
        (c.gpu, i) for c in difference(before, after) if c.kind == "remove" for i in memory_slices(CPU, c.placement)
    }
    made = {(c.gpu, i) for c in difference(before, after) if c.kind == "add" for i in memory_slices(CPU, c.placement)}
    return len({gpu for gpu, _ in gone & made})


@st.composite
def layouts(draw: st.DrawFn) -> dict[int, dict[str, str]]:
    places: dict[int, dict[str, str]] = {}
    for index in range(2):
        cut = draw(st.sampled_from(LAYOUTS))
        tasks = [draw(st.sampled_from(("t0", "t1", ""))) for _ in cut]
        places[index] = {str(p): f"{task}.v0" for p, task in zip(cut, tasks, strict=True) if task}
    return places


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(layouts(), layouts())
# With a start, HiGHS once proved that one repartitioned GPU suffices, and returned a solution with two.
@example(
    {
        0: {"3g@0": "t1.v0", "1g@4": "t0.v0", "1g@5": "t0.v0", "1g@6": "t1.v0"},
        1: {"2g@0": "t1.v0", "2g@2": "t1.v0", "1g@4": "t0.v0", "1g@5": "t1.v0", "1g@6": "t0.v0"},
    },
    {0: {"4g@0": "t0.v0", "3g@4": "t0.v0"}, 1: {"2g@0": "t0.v0", "1g@2": "t0.v0", "1g@3": "t1.v0"}},
)
def test_placement_keeps_as_many_replicas_as_possible(highs: SolverProcess, old: Places, new: Places) -> None:
    before, needs = plan_of(old), needs_of(plan_of(new).gpus)
    if not needs:
        return
    after = placed(highs, needs, 2, before)
    assert needs_of(after.gpus) == needs
    running, now = replicas(before.gpus), replicas(after.gpus)
    stays = sum(running.get(place) == model for place, model in now.items())
    stands = len(running.keys() & now.keys())
    best = max(
        kept(running, needs, cuts)
        for both in product(LAYOUTS, repeat=2)
        for cuts in [[(GpuId("a", i), p) for i, layout in enumerate(both) for p in layout]]
        if by_kind(needs) <= Counter(p.slice for _, p in cuts)
    )
    assert (stays, stands) == best[:2]
    assert recut(before, after) <= -best[2]


@settings(deadline=None, max_examples=50)
@given(layouts(), st.permutations(range(4)), st.sampled_from(("1g", "2g", "3g")))
def test_one_more_replica_moves_no_other(highs: SolverProcess, old: Places, where: list[int], kind: str) -> None:
    """A free GPU exists; the order of the GPUs does not matter."""
    before = plan_of({where[index]: layout for index, layout in old.items()})
    needs = needs_of(before.gpus)
    after = placed(highs, needs + Counter({(kind, "t0"): 1}), 4, before)
    assert [change.kind for change in difference(before, after)] == ["add"]
    again = placed(highs, needs, 4, before)
    assert difference(before, again) == ()
