"""The controller's shell: feeds events to the pure core, carries out its actions and writes the log."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core import step as core
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.immutable_settings import check_ports
from jigsaw_triton.controller.core.request_checks import check_free, check_node, check_removal
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.switching import is_switching
from jigsaw_triton.controller.energy import METER_S, EnergyMeter
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.fleet.succession import ReplacedError
from jigsaw_triton.controller.load_meter import LoadMeter
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints
from jigsaw_triton.controller.persistence.history import outcomes, verdicts
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.controller.subjects import generation_of, subject_of, worker_of
from jigsaw_triton.controller.totals import Totals
from jigsaw_triton.controller.watch import ArrivalWatch
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.logs import about, about_process

log = logging.getLogger(__name__)

TICK_S = 1.0

_CANCEL_S = 10.0
"""Seconds that actions may take to end once they were cancelled."""

SURVEY_S = 2.0
"""Seconds between two looks at the GPUs, each of which asks the driver once for each GPU."""

_MOST_TRIES = 3
"""Times that the stages of a change are computed again before the core does it. A convention: little changes during a
plan."""

_TEARDOWN = (a.Retire, a.StopGateway, a.UnloadGateway, a.UnloadModels)
"""Actions that only remove things, which `down` does not cancel."""

_UNCONDITIONAL = (*_TEARDOWN, a.RestartWorker, a.RestartGateway)
"""Actions that do not wait for a journal that can be written: a full disk prevents no restart."""


class Controller:
    """Keeps the deployment in the state that the user wants, until the user takes it down.

    Args:
        executor: Executor of the core's actions.
        fleet: Servers of the deployment, whose gateway the controller measures.
        journal: Journal for events and actions.
        settings: Settings of the control loop.
        state: State to go on from, by `recovery.recovered`; None to start from nothing.
        load: History of the load, which the controller continues; None to keep only the last minute.

    Attributes:
        state: Present state of the core.
        changes: Number of events that may have changed more of it than the measured load.
        load: History of the load.
        energy: Energy of the GPUs.
        totals: Counts since the start.
    """

    def __init__(
        self,
        executor: Executor,
        fleet: Fleet,
        journal: Journal,
        settings: Settings,
        state: State | None = None,
        load: LoadHistory | None = None,
    ) -> None:
        self._executor = executor
        self._fleet = fleet
        self._journal = journal
        self._queue: asyncio.Queue[e.Event] = asyncio.Queue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._arrivals = ArrivalWatch(fleet)
        self.load = load or LoadHistory()
        self._load_meter = LoadMeter(fleet, self.load, adopted=state is not None)
        self.energy = EnergyMeter()
        self.changes = 0
        self._changed = asyncio.Condition()
        self._checkpoints = Checkpoints(journal)
        self._leaving = asyncio.Event()
        self._ends_because = "the deployment is being taken down"
        self._replaced: ReplacedError | None = None
        first = State(next_generation=journal.last_generation() + 1) if state is None else state
        self.state = replace(first, settings=settings)
        self.totals = Totals()

    @property
    def journal_failure(self) -> str:
        """Reason why the journal's file is incomplete; empty if it is complete."""
        return self._journal.failure

    @property
    def rates_rps(self) -> Mapping[str, float]:
        """Arrival rate of each graph over the last second."""
        return self._load_meter.last.rates_rps

    async def run(self) -> State:
        """Runs until the deployment has been taken down, or until `leave`. Returns the last state.

        Raises:
            ReplacedError: A controller on another machine has replaced this one.
        """
        leaving = asyncio.create_task(self._leaving.wait(), name="leave")
        tasks = [
            asyncio.create_task(_repeat(self._tick, "measurement of the load")),
            asyncio.create_task(_repeat(self._survey, "survey of the GPUs")),
            asyncio.create_task(_repeat(self._watch, "watch over arrivals")),
            asyncio.create_task(_repeat(self._meter, "reading of the GPUs' energy")),
            asyncio.create_task(_repeat(self._tidy, "upkeep of the journal")),
            leaving,
        ]
        try:
            while self.state.phase is not Phase.STOPPED and not self._leaving.is_set():
                event = asyncio.create_task(self._queue.get(), name="next event")
                await asyncio.wait((event, leaving), return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    await self._handle(event.result())
                else:
                    event.cancel()
        finally:
            await end_tasks(*tasks)
        if self._replaced is not None:
            raise self._replaced
        return self.state

    async def adopt(self) -> None:
        """Adopts the servers of an earlier controller, from whose state this one goes on.

        Raises:
            ReplacedError: A controller on another machine has replaced this one.
            JigsawError: The MIG driver, an image or the edge cannot be used.
        """
        state = self.state
        wanted = state.wanted if state.running is None else state.running.wanted
        if wanted is None:
            return
        about_process(generation=generation_of(state))
        for revision in self._journal.generations():
            if not revision.outcome:
                self._journal.conclude(revision.number, "failed")
        ended = await self._fleet.adopt(wanted.cluster, state.actual, wanted.graphs)
        if state.running is not None:
            await self._executor.resume(state.actual.routes)
        self._replicate()
        count = len(state.actual.workers) + state.actual.gateway - len(ended)
        self._journal.event("adopt", f"the controller was restarted and adopted {count} servers")
        for name in ended:
            said = "while no controller ran"
            self._queue.put_nowait(e.GatewayExited(said) if name == Fleet.GATEWAY else e.WorkerExited(name, said))

    def _replicate(self) -> None:
        """Has the standby gateway follow what the gateway serves now."""
        serving = self.state.running
        graphs, generation = (serving.wanted.graphs, serving.bundle.generation) if serving is not None else ({}, 0)
        self._fleet.replication.follow(self.state.actual, graphs, generation)

    def leave(self) -> None:
        """Ends the controller and leaves the servers to the next one."""
        self._leaving.set()

    def give_way(self, error: ReplacedError) -> None:
        """Ends the controller, because one on another machine has replaced it."""
        self._replaced = error
        self._leaving.set()

    async def cancel(self) -> None:
        """Cancels the actions in progress of a replaced controller, so that none of them starts a server any more."""
        self._ends_because = "a controller on another machine has replaced this one"
        for task in (tasks := tuple(self._tasks.values())):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)

    def check_free(self) -> None:
        """Checks that the user may ask for a change.

        Raises:
            StateError: Another deploy is in progress, or the deployment is being taken down.
        """
        check_free(self.state)

    async def ask(self, request: ChangeRequest) -> None:
        """Accepts a request of the user, which `state` shows when the call returns.

        Raises:
            StateError: Another deploy is in progress, or the deployment is being taken down.
            InputError: The gateway's ports differ from those that it listens on.
        """
        self.check_free()
        before = self.state.wanted
        if before is not None and self.state.actual.gateway:
            check_ports(before.cluster.gateway, request.wanted.cluster.gateway)
        if request.restored is None:
            asked = e.DeployRequested(request.wanted, request.canary, request.reason, request.provided_rps)
            await self._handle(asked)
        else:
            await self._handle(e.RollbackRequested(request.restored))

    async def end_canary(self) -> bool:
        """Rolls back the canary in progress. Returns False if there is none."""
        watch = self.state.watch
        if watch is None or watch.verdict is not None:
            return False
        await self._handle(e.CanaryEndRequested())
        return True

    async def pause(self, paused: bool) -> None:
        """Stops or starts following the measured load."""
        await self._handle(e.PauseRequested(paused))

    async def cordon(self, node: str, *, cordoned: bool, drain: bool = False) -> None:
        """Withdraws a node from new plans, or returns it; see `events.CordonRequested`.

        Raises:
            StateError: Nothing is deployed, or the deployment is being taken down.
            InputError: The cluster has no such node.
        """
        check_node(self.state, node)
        await self._handle(e.CordonRequested(node, cordoned, drain))

    def down(self) -> None:
        """Requests that the deployment be taken down. The call may be repeated."""
        if self.state.phase not in (Phase.STOPPING, Phase.STOPPED):
            self._queue.put_nowait(e.DownRequested())

    async def remove_all(self, names: Collection[str]) -> None:
        """Takes the deployment down if it serves only graphs of these names, and none is about to join them.

        Raises:
            StateError: Another deploy is in progress, other graphs are served, or the deployment is being taken down.
        """
        check_removal(self.state, names)
        # The event bypasses the queue, since no deploy may be accepted before it is handled.
        await self._handle(e.DownRequested())

    def notify(self, event: e.Event) -> None:
        """Handles an event that concerns a server."""
        self._queue.put_nowait(event)

    async def wait_changed(self, timeout_s: float) -> None:
        """Waits until an event has been handled, or until the timeout."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)

    async def _handle(self, event: e.Event) -> None:
        before = self.state
        self.state, outputs = core.step(before, event)
        ended = outcomes(before, self.state)
        for number, outcome in ended:
            self._journal.conclude(number, outcome)
        actions = (output.action for output in outputs if isinstance(output, a.Issued))
        self.totals.count((outcome for _, outcome in ended), actions)
        for number, verdict in verdicts(before, self.state):
            self._journal.annotate(number, verdict)
        # The state is saved before the actions begin, so that the next controller knows which may have been done.
        self._checkpoints.save(self.state)
        self._replicate()
        if isinstance(event, e.DownRequested):
            # A task that is cancelled before it starts would never report its outcome.
            await asyncio.sleep(0)
            for number, action in self.state.inflight.items():
                if not isinstance(action, _TEARDOWN) and number in self._tasks:
                    self._tasks[number].cancel()
        reports = [(output.kind, output.text, output.code) for output in outputs if isinstance(output, a.Report)]
        self._journal.add_events(reports)
        about_process(generation=generation_of(self.state))
        for kind, text, _ in reports:
            log.info("%s: %s", kind, text)
        for output in outputs:
            if isinstance(output, a.Issued):
                with about(worker=worker_of(output.action)):
                    self._tasks[output.id] = asyncio.create_task(self._run(output), name=f"action {output.id}")
        if outputs or not isinstance(event, e.Tick | e.Arrived):
            self.changes += 1
            async with self._changed:
                self._changed.notify_all()

    async def _run(self, issued: a.Issued) -> None:
        """Carries out an action and reports its outcome to the core. Never raises."""
        number, action = issued.id, issued.action
        row = 0
        event: e.Event
        error = ""
        try:
            with contextlib.suppress(StateError) if isinstance(action, _UNCONDITIONAL) else contextlib.nullcontext():
                row = self._journal.begin(number, type(action).__name__, subject_of(action), issued.node)
            if isinstance(action, a.Solve):
                event = await self._solved(number, action)
            else:
                await self._executor.run(action)
                event = e.Done(number)
        except asyncio.CancelledError:
            name = type(action).__name__
            error = f"{name} of {subject_of(action)} was cancelled, because {self._ends_because}"
            event = e.Failed(number, error)
        except JigsawError as failure:
            error = str(failure)
            event = e.Failed(number, error, failure.exit_code)
        except Exception as failure:
            # The core must learn that the action has ended, whatever the error is.
            log.exception("action %s failed", type(action).__name__)
            error = f"{type(action).__name__} failed: {type(failure).__name__}: {failure}"
            event = e.Failed(number, error)
        self._journal.end(row, error)
        self._tasks.pop(number, None)
        self._queue.put_nowait(event)

    async def _solved(self, number: int, action: a.Solve) -> e.Solved:
        """Looks for a plan, and computes the stages of the change to it again if what exists has changed meanwhile.

        The core could compute them, but the event loop would wait: for a second if there are a thousand GPUs.
        """
        start, standby = self.state.actual, self.state.standby
        plan, bundle, stages = await self._executor.solve(action, start, standby)
        for _ in range(_MOST_TRIES):
            while is_switching(self.state):
                # The end of the switch changes which models are loaded, and the core adopts no plan before it.
                await self.wait_changed(TICK_S)
            now, serving = self.state.actual, self.state.standby
            if not stages or (now is start and serving == standby):
                break
            try:
                stages = await self._executor.stages(action, plan, bundle, now, serving)
            except JigsawError as error:
                # The plan is still valid. The core detects that the stages are outdated, and computes them.
                log.warning("the stages of generation %d are computed on the event loop: %s", action.generation, error)
                break
            start, standby = now, serving
        return e.Solved(number, plan, bundle, start, stages, standby)

    async def _tick(self) -> None:
        await asyncio.sleep(TICK_S)
        self._journal.sync()
        self._queue.put_nowait(await self._load_meter.tick(self.state, self.energy.joules_per_request))

    async def _survey(self) -> None:
        """Tells the core when GPUs are lost, or back. A node that is lost or back is a reason to look at once."""
        await self._fleet.wait_changed(SURVEY_S)
        lost = await self._fleet.lost_gpus()
        if lost or self.state.lost:
            self._queue.put_nowait(e.GpusLost(lost))

    async def _watch(self) -> None:
        """Tells the core of arrivals as soon as they are counted, while a graph can react to them."""
        event = await self._arrivals.next(needed=bool(self.state.arrivals))
        if event is not None:
            self._queue.put_nowait(event)

    async def _meter(self) -> None:
        """Reads the energy of the GPUs. A driver that hangs delays nothing else."""
        await asyncio.sleep(METER_S)
        counters = await self._fleet.energy()
        used = {worker.place.gpu for worker in self.state.actual.workers.values() if worker.place is not None}
        self.energy.add(counters, used, self._load_meter.served, time.monotonic())

    async def _tidy(self) -> None:
        """Keeps the journal short. Events are handled meanwhile, because threads do what takes long."""
        await asyncio.sleep(TICK_S)
        await asyncio.to_thread(self._journal.flush)
        await asyncio.to_thread(self.load.flush)
        if self._checkpoints.is_long:
            self._checkpoints.replace(await asyncio.to_thread(self._checkpoints.renewed))


async def _repeat(turn: Callable[[], Awaitable[None]], name: str) -> None:
    """Repeats a turn until the task is cancelled. A turn that fails is logged, and the next one begins a second later.

    Without this, one unforeseen error would end for good what watches over a deployment.
    """
    while True:
        try:
            await turn()
        except Exception as error:
            log.warning("%s: %s", name, error, exc_info=not isinstance(error, JigsawError))
            await asyncio.sleep(TICK_S)
