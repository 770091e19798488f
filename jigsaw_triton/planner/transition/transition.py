"""Transition from the running plan to another: ordered steps, and the capacity of each graph meanwhile. Pure.

The cheapest changes come first, and new replicas before old ones go, so that capacity is available throughout. A GPU
that has to be repartitioned has no capacity meanwhile; then the order is the one that takes the least from the graphs.

This is the only order: `plan --diff` prints these steps, and the controller expands each of them into actions
(`controller/core/transition.py`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import fsum
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, Cluster, GpuId
from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.difference import Change, Place, difference
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.processors import processor_limit
from jigsaw_triton.planner.domain.tolerances import ROUNDING
from jigsaw_triton.planner.transition.answering import RUNNING, TARGET
from jigsaw_triton.planner.transition.generations import Generations, of_plans
from jigsaw_triton.planner.transition.interim import Interim, Moment, at_last
from jigsaw_triton.planner.transition.moves import Durations, Kind, Movers, Replica, memory_slices
from jigsaw_triton.planner.transition.sequence import Rooms, Wave, after, during, seconds, sequence

DURATIONS = Durations()


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that are made at once.

    Attributes:
        kind: Kind of change: `shares` (from then on requests follow the new plan's routes and shares), `instances` (the
            same models, other instance counts or batch sizes), `variant` (other models in slices that stay), `geometry`
            (slices that replace others), `add` and `remove` (slices where there is room).
        graphs: Names of the graphs whose models change, sorted.
        changes: Changes of slices by GPU, removals first; empty for `shares`.
        beside: True if slices that stay load their new models while the old ones serve; False if they must unload the
            old ones first.
        stand_in: True if it adds or removes stand-ins, replicas that serve only during the transition.
        seconds: Expected duration.
        during: Moment during the step.
        after: Moment after the step.
    """

    kind: Kind
    graphs: tuple[str, ...]
    changes: tuple[Change, ...]
    beside: bool
    stand_in: bool
    seconds: float
    during: Moment
    after: Moment

    @property
    def during_rps(self) -> Mapping[str, float]:
        """Capacity of each graph of the new plan during the step, in requests a second."""
        return self.during.capacities_rps

    @property
    def after_rps(self) -> Mapping[str, float]:
        """Capacity of each graph of the new plan after the step, in requests a second."""
        return self.after.capacities_rps


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Capacity that a graph lacks on the way, compared with its demand or its capacity before, whichever is less.

    Attributes:
        graph: Name of the graph.
        missing_rps: Largest shortfall, in requests a second.
        seconds: Duration of the shortfall.
        requests: Number of requests that find no capacity.
    """

    graph: str
    missing_rps: float
    seconds: float
    requests: float


@dataclass(frozen=True, slots=True)
class Transition:
    """Transition from one plan to another.

    Attributes:
        before_rps: Present capacity of each graph of the new plan, in requests a second.
        steps: Steps in order; each starts when the one before it is done.
        shortfalls: Shortfalls by graph; empty if capacity suffices throughout.
    """

    before_rps: Mapping[str, float]
    steps: tuple[Step, ...]
    shortfalls: tuple[Shortfall, ...]

    @property
    def seconds(self) -> float:
        """Expected duration of all steps."""
        return fsum(step.seconds for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Returns the transition as JSON."""
        return {
            "seconds": round(self.seconds, 3),
            "before_rps": dict(self.before_rps),
            "steps": [_step_json(step) for step in self.steps],
            "shortfalls": [asdict(shortfall) for shortfall in self.shortfalls],
        }


def transition(
    problem: Problem,
    plan: Plan,
    options: Options | None = None,
    durations: Durations = DURATIONS,
    reloads: Collection[Place] = (),
    restarts: Collection[Place] = (),
    generations: Generations | None = None,
) -> Transition:
    """Returns the transition from the problem's running plan, or from empty GPUs, to a plan.

    Args:
        problem: Problem that the plan was made for.
        plan: Plan to change to.
        options: Options that it was made with.
        durations: Durations of operations.
        reloads: MIG instances whose models are loaded again although the plans agree, because their content is new.
        restarts: Instances in `reloads` whose servers are replaced, so that no model can be loaded beside an old one.
        generations: Generations of the models; None if variants have the same content in both plans, except in
            `reloads`.

    Raises:
        InputError: The problem is invalid, or the cluster lacks a GPU of one of the plans and its board is unknown.
    """
    problem = problem.prepared()
    running = _running(problem)
    boards = _boards(problem, running, plan)
    if generations is None:
        separate = [w.graph.name for w in problem.workloads if w.graph.target not in ("auto", "graph")]
        generations = of_plans(running, plan, reloads, separate)
    served = _of_generation(running, generations)
    left = replace(plan, gpus=tuple(gpu for gpu in plan.gpus if gpu.id not in generations.lost))
    service = Service(replace(problem, running=served), left, options or Options())
    interim = Interim(service, generations, running)
    movers = Movers(boards, interim, durations, frozenset(restarts))
    changes = difference(running, plan, reloads)
    rooms = _rooms(problem.cluster, boards, running, plan)
    waves = sequence(list(movers.moves(changes)), movers, _replicas(running, plan, interim), rooms)
    steps = _with_shares(_steps(waves, interim), running, plan, interim, durations)
    before = Moment(service.before_rps, dict.fromkeys(service.before_rps, RUNNING), taken=False)
    if processor_limit(problem) is not None:
        before = _within_plans(before, running, plan)
        steps = [
            replace(s, during=_within_plans(s.during, running, plan), after=_within_plans(s.after, running, plan))
            for s in steps
        ]
    return Transition(before.capacities_rps, tuple(steps), _shortfalls(steps, interim))


def check_room(problem: Problem, plan: Plan) -> None:
    """Checks that the GPUs can hold the problem's running plan, and another one.

    Raises:
        InputError: A GPU cannot hold the instances of a plan beside those of others.
    """
    running = _running(problem)
    boards = _boards(problem, running, plan)
    foreign = {gpu.id: gpu.foreign for gpu in problem.cluster.gpus}
    for gpu in (gpu for found in (running, plan) if found is not None for gpu in found.gpus):
        placements = [*foreign.get(gpu.id, ()), *(placed.placement for placed in gpu.layout)]
        if reason := fits(boards[gpu.id], placements):
            raise InputError(f"a plan does not fit this GPU: {reason}", where=f"GPU {gpu.id}", hint="plan again")


def _within_plans(moment: Moment, running: Plan | None, plan: Plan) -> Moment:
    """Returns a moment of slices that share processors: they carry at most what the plans of their generations say."""
    before = {name: one.capacity_rps for name, one in running.graphs.items()} if running is not None else {}
    after = {name: one.capacity_rps for name, one in plan.graphs.items()}
    limits = {
        RUNNING: before,
        TARGET: after,
        None: {name: max(before.get(name, 0.0), rps) for name, rps in after.items()},
    }
    found = {
        name: min(rps, limits.get(moment.shares[name], limits[None]).get(name, 0.0))
        for name, rps in moment.capacities_rps.items()
    }
    return replace(moment, capacities_rps=found)


def _running(problem: Problem) -> Plan | None:
    """Returns the running plan without GPUs that have been replaced by another model."""
    models = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    running = problem.running
    if running is None:
        return None
    return replace(running, gpus=tuple(gpu for gpu in running.gpus if models.get(gpu.id, gpu.model) == gpu.model))


def _boards(problem: Problem, *plans: Plan | None) -> dict[GpuId, Board]:
    """Returns the boards of the cluster's GPUs, and of those that the plans use and that have left the cluster."""
    boards = {gpu.id: gpu.board for gpu in problem.cluster.gpus}
    for gpu in (gpu for plan in plans if plan is not None for gpu in plan.gpus):
        if gpu.id not in boards:
            boards[gpu.id] = board(gpu.model, where=f"GPU {gpu.id} of the running plan")
    return boards


def _of_generation(running: Plan | None, generations: Generations) -> Plan | None:
    """Returns the running plan with the models of the running generation alone."""
    if running is None:
        return None

    def served(gpu: GpuId, placed: PlacedSlice) -> PlacedSlice:
        place = (gpu, placed.placement)
        models = tuple(model for model in placed.models if generations.of_existing(place, model)[0])
        return placed if models == placed.models else replace(placed, models=models)

    gpus = (replace(gpu, layout=tuple(served(gpu.id, placed) for placed in gpu.layout)) for gpu in running.gpus)
    return replace(running, gpus=tuple(gpus))


def _replicas(running: Plan | None, plan: Plan, interim: Interim) -> list[Replica]:
    """Returns the replicas that may stand in: those of the running generation, and others of the target."""
    found: dict[tuple[str, str, tuple[PlacedModel, ...]], Replica] = {}
    for of_plan, carried in ((_of_generation(running, interim.generations), interim.existing), (plan, interim.wanted)):
        for gpu in of_plan.gpus if of_plan is not None else ():
            for placed in gpu.layout:
                key = (gpu.model, placed.placement.slice, placed.models)
                if placed.models and key not in found:
                    calls = carried((gpu.id, placed.placement), placed.models, gpu.model)
                    # A replica on a lost GPU carries nothing, but a copy of one elsewhere does.
                    if calls.any():
                        found[key] = Replica(*key, calls)
    return [found[key] for key in sorted(found, key=str)]


def _rooms(cluster: Cluster, boards: Mapping[GpuId, Board], *plans: Plan | None) -> Rooms:
    """Returns the memory slices that are free in both plans. GPUs that neither plan uses come last."""
    taken: dict[GpuId, set[int]] = {
        gpu.id: {at for placement in gpu.foreign for at in memory_slices(gpu.board, placement)} for gpu in cluster.gpus
    }
    for gpu in (gpu for plan in plans if plan is not None for gpu in plan.gpus):
        for placed in gpu.layout if gpu.id in taken else ():
            taken[gpu.id].update(memory_slices(boards[gpu.id], placed.placement))
    used = {gpu.id for plan in plans if plan is not None for gpu in plan.gpus}
    return {
        gpu: (boards[gpu], frozenset(range(boards[gpu].memory_slices)) - taken[gpu])
        for gpu in sorted(taken, key=lambda gpu: (gpu not in used, gpu))
    }


def _with_shares(
    steps: list[Step], running: Plan | None, plan: Plan, interim: Interim, durations: Durations
) -> list[Step]:
    """Adds the step from which on requests follow the new plan: after the last step that adds capacity for it.

    Only replicas of the new plan serve from then on.
    """
    before = running.graphs if running is not None else {}
    moved = {graph for step in steps for graph in step.graphs} | (before.keys() ^ plan.graphs.keys())
    moved |= {name for name in before.keys() & plan.graphs.keys() if _differ(before[name], plan.graphs[name])}
    if not moved:
        return steps
    at = max((i for i, step in enumerate(steps, 1) if step.kind != "remove"), default=0)
    now, last = steps[at - 1].after if at else interim.at(interim.start), at_last(interim.service.after_rps)
    shares = Step("shares", tuple(sorted(moved)), (), True, False, durations.shares_s, now, last)
    return [*steps[:at], shares, *(replace(step, during=last, after=last) for step in steps[at:])]


def _differ(before: GraphPlan, now: GraphPlan) -> bool:
    """Returns True if two plans for a graph have different routing shares."""
    old, new = _by_segment(before), _by_segment(now)
    return any(abs(old.get(segment, 0.0) - new.get(segment, 0.0)) > ROUNDING for segment in old.keys() | new.keys())


def _by_segment(planned: GraphPlan) -> dict[tuple[str, str, str, int, int], float]:
    return {
        (name, s.variant, s.slice, s.instances, s.batch): s.share
        for name, task in planned.tasks.items()
        for s in task.segments
    }


def _steps(waves: Iterable[Wave], interim: Interim) -> list[Step]:
    steps = []
    serving: Array = interim.start
    for wave in waves:
        changes = tuple(sorted((c for move in wave for c in move.changes), key=_in_order))
        models = [model for change in changes for model in (*change.before, *change.after)]
        step = Step(
            kind=wave[0].kind,
            graphs=tuple(sorted({model.graph for model in models})),
            changes=changes,
            beside=wave[0].beside,
            stand_in=wave[0].stand_in,
            seconds=seconds(wave),
            during=interim.at(during(serving, wave)),
            after=interim.at(after(serving, wave)),
        )
        steps.append(step)
        serving = after(serving, wave)
    return steps


def _in_order(change: Change) -> tuple[GpuId, bool, Change]:
    """Returns the sort key: removals come first on each GPU."""
    return change.gpu, change.kind != "remove", change


def _shortfalls(steps: Iterable[Step], interim: Interim) -> tuple[Shortfall, ...]:
    missing: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        for graph, lack_rps in interim.missing(step.during_rps).items():
            missing.setdefault(graph, []).append((lack_rps, step.seconds))
    return tuple(
        Shortfall(
            graph,
            missing_rps=max(lack_rps for lack_rps, _ in found),
            seconds=fsum(seconds for _, seconds in found),
            requests=fsum(lack_rps * seconds for lack_rps, seconds in found),
        )
        for graph, found in sorted(missing.items())
    )


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "beside": step.beside,
        "stand_in": step.stand_in,
        "graphs": list(step.graphs),
        "seconds": round(step.seconds, 3),
        "places": [
            {
                "node": change.gpu.node,
                "index": change.gpu.index,
                "slice": change.placement.slice,
                "start": change.placement.start,
                "before": [asdict(model) for model in change.before],
                "after": [asdict(model) for model in change.after],
            }
            for change in step.changes
        ],
        "during_rps": dict(step.during_rps),
        "after_rps": dict(step.after_rps),
    }
