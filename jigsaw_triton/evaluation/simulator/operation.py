"""Simulates a deployment over a trace: the controller's own core and planner, with servers that exist only as numbers.

The core gets a tick each second with the arrivals of the trace. Its actions take the durations that the planner expects
(`planner/transition/moves.py`), and change the same record of servers and routes as in a real deployment. Between two
events the simulation is fluid: a graph serves requests up to the capacity of the workers on its routes, and requests
beyond it are violations. The capacity is the planner's, at which requests meet the SLO. So a violation is a request
that would be late or refused; the simulation does not distinguish the two.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph, Worker
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core import step as core
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.order import placed_models
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.capacity import Service
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.transition.moves import Durations

Array = NDArray[np.float64]

Solver = Callable[[a.Solve], tuple[Plan, Bundle]]
"""Function that plans and compiles; it raises a JigsawError if it cannot."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the plan during a simulation.

    Attributes:
        at_s: Time of its beginning, in seconds since the start of the trace.
        seconds: Duration from the decision to the end of its last stage.
        generation: Number of the generation.
        reason: Cause of the change.
        slices: Compute slices of the new plan.
        failure: Reason why the change failed; empty if it succeeded.
    """

    at_s: float
    seconds: float
    generation: int
    reason: str
    slices: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """Result of a simulation.

    Attributes:
        arrived: Graph -> requests in each second, arrays of shape [seconds].
        violations: Graph -> requests in each second that found no capacity.
        capacity_rps: Graph -> mean capacity in each second.
        accuracy: Graph -> accuracy of the running plan in each second.
        slices: Compute slices in use in each second.
        changes: Changes of the plan, in order.
    """

    arrived: Mapping[str, Array]
    violations: Mapping[str, Array]
    capacity_rps: Mapping[str, Array]
    accuracy: Mapping[str, Array]
    slices: Array
    changes: tuple[Change, ...]

    @property
    def violation_share(self) -> float:
        """Share of all requests that found no capacity."""
        sent = sum(float(counts.sum()) for counts in self.arrived.values())
        return sum(float(counts.sum()) for counts in self.violations.values()) / sent if sent else 0.0


def simulate_operation(
    wanted: Wanted,
    arrivals: Mapping[str, Array],
    solve: Solver,
    *,
    settings: Settings | None = None,
    durations: Durations | None = None,
    solve_s: float = 1.0,
    progress: Callable[[float], None] = lambda _: None,
) -> Operation:
    """Simulates a deployment from its first plan to the end of the arrivals.

    Args:
        wanted: Deployment input; its demand is what the first plan covers.
        arrivals: Graph -> requests in each second, arrays of equal length.
        solve: Planner.
        settings: Settings of the controller; None for the defaults.
        durations: Durations of operations; None for the planner's.
        solve_s: Seconds that planning takes.
        progress: Receives the share of the trace that has been simulated, once for each of its minutes.

    Raises:
        JigsawError: The first plan is not feasible.
    """
    return _Simulation(wanted, solve, settings or Settings(), durations or Durations(), solve_s).run(arrivals, progress)


class _Simulation:
    def __init__(self, wanted: Wanted, solve: Solver, settings: Settings, durations: Durations, solve_s: float) -> None:
        self._wanted, self._solve, self._durations, self._solve_s = wanted, solve, durations, solve_s
        self._state = State(settings=settings)
        self._now_s = 0.0
        self._due: list[tuple[float, int, e.Event]] = []
        self._numbers = count()
        self._meter = _Meter()
        self._begun: dict[int, tuple[float, str]] = {}
        self._changes: list[Change] = []
        self._last = 0
        self._error: JigsawError | None = None

    def run(self, arrivals: Mapping[str, Array], progress: Callable[[float], None]) -> Operation:
        self._send(e.DeployRequested(self._wanted))
        while self._due and self._state.phase is not Phase.READY:
            self._next()
        if self._error is not None:
            raise self._error
        start_s = self._now_s
        self._changes.clear()
        seconds = len(next(iter(arrivals.values())))
        names = list(self._wanted.graphs)
        capacity = {name: np.zeros(seconds) for name in names}
        violations = {name: np.zeros(seconds) for name in names}
        accuracy = {name: np.zeros(seconds) for name in names}
        slices = np.zeros(seconds)
        for second in range(seconds):
            end_s = start_s + second + 1
            while self._now_s < end_s:
                until_s = min(end_s, self._due[0][0]) if self._due else end_s
                part_s = until_s - self._now_s
                if part_s > 0:
                    carried = self._meter.capacities(self._state)
                    for name in names:
                        capacity[name][second] += carried[name] * part_s
                        violations[name][second] += max(0.0, arrivals[name][second] - carried[name]) * part_s
                    slices[second] += self._meter.slices(self._state.actual) * part_s
                self._now_s = until_s
                while self._due and self._due[0][0] <= self._now_s:
                    self._next()
            running = self._state.running
            for name in names:
                accuracy[name][second] = running.plan.graphs[name].accuracy if running is not None else 0.0
            self._send(e.Tick(self._now_s, {name: float(arrivals[name][second]) for name in names}))
            if second % 60 == 0:
                progress(second / seconds)
        changes = tuple(replace(change, at_s=change.at_s - start_s) for change in self._changes)
        return Operation(dict(arrivals), violations, capacity, accuracy, slices, changes)

    def _next(self) -> None:
        self._now_s, _, event = heapq.heappop(self._due)
        self._send(event)

    def _send(self, event: e.Event) -> None:
        before = self._state
        self._state, outputs = core.step(before, event)
        for output in outputs:
            if isinstance(output, a.Issued):
                self._begin(output)
        self._note(before, event)

    def _begin(self, issued: a.Issued) -> None:
        action = issued.action
        if isinstance(action, a.Solve):
            self._begun[action.generation] = (self._now_s, action.reason)
            outcome: e.Event
            try:
                outcome = e.Solved(issued.id, *self._solve(action))
            except JigsawError as error:
                if self._state.running is None:
                    self._error = error
                outcome = e.Failed(issued.id, str(error), error.exit_code)
            self._later(self._solve_s, outcome)
        else:
            self._later(seconds(action, self._durations), e.Done(issued.id))

    def _later(self, after_s: float, event: e.Event) -> None:
        heapq.heappush(self._due, (self._now_s + after_s, next(self._numbers), event))

    def _note(self, before: State, event: e.Event) -> None:
        """Records a change that has ended."""
        state = self._state
        if before.phase in (Phase.SOLVING, Phase.CHANGING) and state.phase is Phase.READY and state.running is not None:
            failure = event.error if isinstance(event, e.Failed) else ""
            served = state.running.bundle.generation
            generation = max(self._begun) if failure else served
            if generation != self._last or failure:
                self._last = generation
                begun_s, reason = self._begun[generation]
                taken_s = self._now_s - begun_s
                slices = state.running.plan.slices_used
                self._changes.append(Change(begun_s, taken_s, generation, reason, slices, failure))


class _Meter:
    """Measures the capacity and the slices of what runs. Remembers the last answer, since most ticks change nothing."""

    def __init__(self) -> None:
        self._actual: Actual | None = None
        self._carried: dict[str, float] = {}
        self._plans: tuple[Generation | None, Generation | None] = (None, None)
        self._service: Service | None = None
        self._sliced: Actual | None = None
        self._slices = 0

    def capacities(self, state: State) -> Mapping[str, float]:
        """Returns the capacity of each graph, in requests a second."""
        plans = (state.running, state.pending if state.pending is not state.running else None)
        if state.actual is not self._actual or plans != self._plans:
            self._actual = state.actual
            if plans != self._plans:
                self._plans, self._service = plans, _service(*plans)
            self._carried = _capacities(state, self._service)
        return self._carried

    def slices(self, actual: Actual) -> int:
        """Returns the compute slices of all MIG instances."""
        if actual is not self._sliced:
            places = {worker.place for worker in actual.workers.values() if worker.place is not None}
            profiles = (CATALOG[place.board].profiles[place.placement.slice] for place in places)
            self._sliced, self._slices = actual, sum(profile.compute_slices for profile in profiles)
        return self._slices


def _service(running: Generation | None, pending: Generation | None) -> Service | None:
    target = pending or running
    if target is None:
        return None
    wanted, before = target.wanted, running.plan if running is not None else None
    workloads = tuple(Workload(g, target.plan.graphs[n].demand_rps) for n, g in wanted.graphs.items())
    problem = Problem(workloads, wanted.cluster, wanted.profiles, running=before).prepared()
    return Service(problem, target.plan, wanted.options)


def _capacities(state: State, service: Service | None) -> dict[str, float]:
    """Returns the capacity of the workers on the routes of the fronts that serve."""
    if service is None or state.running is None:
        return dict.fromkeys(state.wanted.graphs if state.wanted is not None else (), 0.0)
    actual = state.actual
    routed: dict[str, set[str]] = {}
    for graph, front in actual.fronts.items():
        form = _form(graph, front.files, state)
        for task in form.tasks if form is not None else ():
            for entry in actual.routes.get(task.name, ()):
                if not entry.closed:
                    routed.setdefault(entry.worker, set()).add(entry.model)
    serving = 0 * service.start
    for name, models in routed.items():
        worker = actual.workers.get(name)
        if worker is not None and worker.place is not None:
            serving = serving + service.rates(
                placed_models([_only(worker, models)]), worker.place.board, worker.place.placement.slice
            )
    return service.capacities(serving)


def _form(graph: str, front: Mapping[str, object], state: State) -> CompiledGraph | None:
    """Returns the form of a graph whose front is loaded."""
    for generation in (state.pending, state.running):
        compiled = generation.bundle.graphs.get(graph) if generation is not None else None
        for form in compiled.forms if compiled is not None else ():
            if form.front.files == front:
                return form
    return None


def _only(worker: Worker, routed: set[str]) -> Worker:
    """Returns a worker with the models that have a route, and the members of the chains that have one."""
    members = {name for model in worker.models if model.name in routed for name in model.members}
    return replace(worker, models=tuple(m for m in worker.models if m.name in routed | members))


def seconds(action: a.Action, durations: Durations) -> float:
    """Returns the expected duration of an action in seconds."""
    match action:
        case a.BringUp(worker) | a.RestartWorker(worker):
            return durations.create_s + durations.start_s + durations.load_s * len(worker.models)
        case a.LoadModels(_, models):
            return durations.load_s * len(models)
        case a.Drain() | a.Settle():
            return durations.drain_s
        case a.Retire():
            return durations.destroy_s
        case a.StartGateway() | a.RestartGateway():
            return durations.start_s
        case _:
            return durations.shares_s
