"""Simulates a deployment over a trace: the controller's own core and planner, with servers that exist only as numbers.

The core gets a tick each second with the arrivals of the trace. Its actions take the durations that the planner expects
(`planner/transition/moves.py`), and change the same record of servers and routes as in a real deployment.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core import step as core
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.watch import WATCH_S
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.evaluation.simulator.accounting import NEVER_S, Array, Change, Curve, Operation, Replica, operate
from jigsaw_triton.evaluation.simulator.curves import MakeCurve, planned
from jigsaw_triton.evaluation.simulator.meter import Meter
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.transition.moves import Durations

SOLVE_S = 1.0
"""Seconds that planning takes."""

WAIT_SHARE = 0.5
"""Share of the latency SLO for which requests beyond the capacity wait for servers. The planner's default latency model
leaves half of the SLO for waiting."""

_READINGS = round(1 / WATCH_S)
"""Readings of the arrivals in a second in which they exceed the capacity."""

Solver = Callable[[a.Solve], tuple[Plan, Bundle]]
"""Function that plans and compiles; it raises a JigsawError if it cannot."""


def simulate_operation(
    wanted: Wanted,
    arrivals: Mapping[str, Array],
    solve: Solver,
    *,
    settings: Settings | None = None,
    durations: Durations | None = None,
    make_curve: MakeCurve = planned,
    progress: Callable[[float], None] = lambda _: None,
) -> Operation:
    """Simulates a deployment from its first plan to the end of the arrivals.

    Args:
        wanted: Deployment input; its demand is what the first plan covers.
        arrivals: Graph -> requests in each second, arrays of equal length.
        solve: Planner.
        settings: Settings of the controller; None for the defaults.
        durations: Durations of operations; None for the planner's.
        make_curve: Function that returns the curve of what a plan's servers answer on time.
        progress: Function that receives the share of the trace that has been simulated, once for each of its minutes.

    Raises:
        JigsawError: The first plan is not feasible.
    """
    deployment = Deployment(wanted, solve, settings or Settings(), durations or Durations(), SOLVE_S, make_curve)
    waits_s = {name: WAIT_SHARE * graph.slo.latency_ms / 1000 for name, graph in wanted.graphs.items()}
    return operate(deployment, arrivals, progress=progress, waits_s=waits_s)


class Deployment:
    """A simulated deployment, which serves from the start.

    Args:
        wanted: Deployment input.
        solve: Planner.
        settings: Settings of the controller.
        durations: Durations of operations.
        solve_s: Seconds that planning takes.
        make_curve: Function that returns the curve of what a plan's servers answer on time.

    Raises:
        JigsawError: The first plan is not feasible.
    """

    def __init__(
        self,
        wanted: Wanted,
        solve: Solver,
        settings: Settings,
        durations: Durations,
        solve_s: float,
        make_curve: MakeCurve,
    ) -> None:
        self._solve, self._durations, self._solve_s = solve, durations, solve_s
        self._state = State(settings=settings)
        self.now_s = 0.0
        self._due: list[tuple[float, int, e.Event]] = []
        self._numbers = count()
        self._meter = Meter(make_curve)
        self._begun: dict[int, tuple[float, str]] = {}
        self._changes: list[Change] = []
        self._last = 0
        self._error: JigsawError | None = None
        self._send(e.DeployRequested(wanted))
        while self._due and self._state.phase is not Phase.READY:
            self._next()
        if self._error is not None:
            raise self._error
        self._changes.clear()

    @property
    def next_s(self) -> float:
        """Time of the next event; infinite if none is due."""
        return self._due[0][0] if self._due else NEVER_S

    def advance(self, to_s: float) -> None:
        """Moves the time on and handles all events that are due."""
        self.now_s = to_s
        while self._due and self._due[0][0] <= to_s:
            self._next()

    def begin_second(self, rates_rps: Mapping[str, float]) -> None:
        """Schedules the readings of arrivals in the next second.

        The shell reads them ten times a second. If no graph receives more than its usual variants carry, one reading
        leads to the same decisions.
        """
        arrivals = self._state.arrivals
        if arrivals:
            exceeds = any(rates_rps[name] > recent.usual_rps for name, recent in arrivals.items())
            readings = _READINGS if exceeds else 1
            requests = {name: rate / readings for name, rate in rates_rps.items()}
            for number in range(1, readings + 1):
                after_s = number / readings
                self._later(after_s, e.Arrived(self.now_s + after_s, 1 / readings, requests))

    def tick(self, rates_rps: Mapping[str, float]) -> None:
        """Handles the arrivals of the last second."""
        self._send(e.Tick(self.now_s, rates_rps))

    def curves(self) -> Mapping[str, Curve]:
        """Returns the curve of the servers that serve each graph now."""
        return self._meter.curves(self._state)

    def replicas(self) -> frozenset[Replica]:
        """Returns the replicas in service."""
        return self._meter.replicas(self._state)

    def slices(self) -> int:
        """Returns the compute slices of all MIG instances."""
        return self._meter.slices(self._state.actual)

    def accuracy(self, graph: str) -> float:
        """Returns the accuracy of the running plan with the variants that serve; 0 if none do."""
        running = self._state.running
        if running is None:
            return 0.0
        plan = running.plan.graphs[graph]
        return plan.standby.accuracy if graph in self._state.standby and plan.standby is not None else plan.accuracy

    def changes(self) -> Sequence[Change]:
        """Returns the changes so far, with times on the system's clock."""
        return self._changes

    def _next(self) -> None:
        self.now_s, _, event = heapq.heappop(self._due)
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
            self._begun[action.generation] = (self.now_s, action.reason)
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
        heapq.heappush(self._due, (self.now_s + after_s, next(self._numbers), event))

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
                taken_s = self.now_s - begun_s
                slices = state.running.plan.slices_used
                self._changes.append(Change(begun_s, taken_s, generation, reason, slices, failure))


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
