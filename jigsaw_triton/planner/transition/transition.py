"""The way from a running plan to another: steps in order, and what the graphs get meanwhile. Pure.

The cheapest changes first, and what is new before what is old goes, so that capacity is there at every moment; where a
GPU has to be cut anew there is none of it meanwhile, and the order is the one that takes the least from the graphs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, Cluster, Gpu, GpuId
from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.difference import Change, difference
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.transition.moves import Durations, Kind, Movers, memory_slices
from jigsaw_triton.planner.transition.sequence import Replica, Rooms, Wave, after, during, seconds, sequence

DURATIONS = Durations()

_SHARE = 1e-6
"""A smaller difference of shares is none."""


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that are made at once.

    Attributes:
        kind: `shares` (routes alone), `instances` (the same models, other instances or batches), `variant` (other
            models in slices that stay), `geometry` (slices in the place of others), `add` and `remove` (slices where
            there is room).
        graphs: Whose models are concerned, sorted.
        changes: Of slices, by GPU, what leaves it first; none where the shares alone change.
        stand_in: Whether it is about replicas that serve during the transition alone.
        seconds: Expected.
        during_rps: Graph of the new plan -> requests a second that it has capacity for meanwhile.
        after_rps: Likewise, afterwards.
    """

    kind: Kind
    graphs: tuple[str, ...]
    changes: tuple[Change, ...]
    stand_in: bool
    seconds: float
    during_rps: Mapping[str, float]
    after_rps: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What a graph misses on the way, of the demand or of what it had before, whichever is less.

    Attributes:
        graph: Which.
        missing_rps: Requests a second, at worst.
        seconds: For how long any are missing.
        requests: How many are missing together.
    """

    graph: str
    missing_rps: float
    seconds: float
    requests: float


@dataclass(frozen=True, slots=True)
class Transition:
    """The way from one plan to another.

    Attributes:
        before_rps: Graph of the new plan -> requests a second that it has capacity for now.
        steps: In order, each after the one before it is done.
        shortfalls: By graph; none where capacity is there throughout.
    """

    before_rps: Mapping[str, float]
    steps: tuple[Step, ...]
    shortfalls: tuple[Shortfall, ...]

    @property
    def seconds(self) -> float:
        """Expected, of all steps."""
        return sum(step.seconds for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seconds": round(self.seconds, 3),
            "before_rps": dict(self.before_rps),
            "steps": [_step_json(step) for step in self.steps],
            "shortfalls": [asdict(shortfall) for shortfall in self.shortfalls],
        }


def transition(
    problem: Problem, plan: Plan, options: Options | None = None, durations: Durations = DURATIONS
) -> Transition:
    """The way from the problem's running plan, or from nothing, to the plan.

    Args:
        problem: That the plan was made for.
        plan: To come to.
        options: It was made with.
        durations: What things take.

    Raises:
        InputError: The problem makes no sense, or the running plan cannot be on its GPUs.
    """
    problem = problem.prepared()
    running = _here(problem)
    boards = _boards(problem, running, plan)
    service = Service(replace(problem, running=running), plan, options or Options())
    movers = Movers(boards, service, durations)
    changes = difference(running, plan)
    rooms = _rooms(problem.cluster, boards, running, plan)
    waves = sequence(list(movers.moves(changes)), movers, _replicas(running, plan), rooms)
    steps = [*_shares(running, plan, changes, service, durations), *_steps(waves, service)]
    if steps:
        steps[-1] = replace(steps[-1], after_rps=service.after_rps)
    return Transition(service.before_rps, tuple(steps), _shortfalls(steps, service))


def _here(problem: Problem) -> Plan | None:
    """The running plan without GPUs that are of another model now."""
    models = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    running = problem.running
    if running is None:
        return None
    return replace(running, gpus=tuple(gpu for gpu in running.gpus if models.get(gpu.id, gpu.model) == gpu.model))


def _boards(problem: Problem, *plans: Plan | None) -> dict[GpuId, Board]:
    """Of the GPUs that the plans use."""
    known = {gpu.id: gpu for gpu in problem.cluster.gpus}
    boards: dict[GpuId, Board] = {}
    for gpu in (gpu for plan in plans if plan is not None for gpu in plan.gpus):
        here = known.get(gpu.id) or Gpu(gpu.id, board(gpu.model, where=f"GPU {gpu.id} of the running plan"))
        boards[gpu.id] = here.board
        if reason := fits(here.board, [*here.foreign, *(placed.placement for placed in gpu.layout)]):
            raise InputError(f"this cannot run: {reason}", where=f"GPU {gpu.id}", hint="plan again")
    return boards


def _replicas(*plans: Plan | None) -> list[Replica]:
    found = {
        (gpu.model, placed.placement.slice, placed.models)
        for plan in plans
        for gpu in (plan.gpus if plan is not None else ())
        for placed in gpu.layout
    }
    return sorted(found, key=str)


def _rooms(cluster: Cluster, boards: Mapping[GpuId, Board], *plans: Plan | None) -> Rooms:
    foreign = {gpu.id: gpu.foreign for gpu in cluster.gpus}
    taken: dict[GpuId, set[int]] = {
        gpu: {at for placement in foreign.get(gpu, ()) for at in memory_slices(board, placement)}
        for gpu, board in boards.items()
    }
    for gpu in (gpu for plan in plans if plan is not None for gpu in plan.gpus):
        for placed in gpu.layout:
            taken[gpu.id].update(memory_slices(boards[gpu.id], placed.placement))
    return {gpu: (boards[gpu], frozenset(range(boards[gpu].memory_slices)) - taken[gpu]) for gpu in sorted(boards)}


def _shares(
    running: Plan | None, plan: Plan, changes: Iterable[Change], service: Service, durations: Durations
) -> list[Step]:
    """The step of the graphs of which nothing but the shares changes; others' shares follow their replicas."""
    before = running.graphs if running is not None else {}
    moved = {model.graph for change in changes for model in (*change.before, *change.after)}
    stay = sorted((plan.graphs.keys() & before.keys()) - moved)
    graphs = tuple(name for name in stay if _differ(before[name], plan.graphs[name]))
    if not graphs:
        return []
    capacities = service.capacities(service.start)
    return [Step("shares", graphs, (), False, durations.shares_s, capacities, capacities)]


def _differ(before: GraphPlan, now: GraphPlan) -> bool:
    """Whether the shares of two plans for a graph differ."""
    old, new = _by_segment(before), _by_segment(now)
    return any(abs(old.get(segment, 0.0) - new.get(segment, 0.0)) > _SHARE for segment in old.keys() | new.keys())


def _by_segment(planned: GraphPlan) -> dict[tuple[str, str, str, int, int], float]:
    return {
        (name, s.variant, s.slice, s.instances, s.batch): s.share
        for name, task in planned.tasks.items()
        for s in task.segments
    }


def _steps(waves: Iterable[Wave], service: Service) -> list[Step]:
    steps = []
    serving: Array = service.start
    for wave in waves:
        changes = tuple(sorted((c for move in wave for c in move.changes), key=_in_order))
        models = [model for change in changes for model in (*change.before, *change.after)]
        step = Step(
            kind=wave[0].kind,
            graphs=tuple(sorted({model.graph for model in models})),
            changes=changes,
            stand_in=wave[0].stand_in,
            seconds=seconds(wave),
            during_rps=service.capacities(during(serving, wave)),
            after_rps=service.capacities(after(serving, wave)),
        )
        steps.append(step)
        serving = after(serving, wave)
    return steps


def _in_order(change: Change) -> tuple[GpuId, bool, Change]:
    """On a GPU, what leaves before what comes."""
    return change.gpu, change.kind != "remove", change


def _shortfalls(steps: Iterable[Step], service: Service) -> tuple[Shortfall, ...]:
    found: dict[str, Shortfall] = {}
    for step in steps:
        for graph, lack in service.missing(step.during_rps).items():
            before = found.get(graph, Shortfall(graph, 0.0, 0.0, 0.0))
            found[graph] = Shortfall(
                graph,
                missing_rps=max(before.missing_rps, lack),
                seconds=before.seconds + step.seconds,
                requests=before.requests + lack * step.seconds,
            )
    return tuple(found[graph] for graph in sorted(found))


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind,
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
