"""One cycle of the controller on a large cluster: sense, solve, and the steps of the change. Servers are simulated.

The shell and its planner are the real ones. Actions on servers end at once, and the load comes from the metrics of a
gateway that exists only as text. The load of every graph rises beyond what runs. Then a first plan serves, and a review
improves it. Meanwhile a task of the same event loop notes how late it is woken.
"""

import asyncio
import gc
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from benchmarks import problems, system
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.planning.job import Job
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.servers.metrics import Sample

GPUS, GRAPHS, SEED = 1000, 50, 1
RISE = 1.25
"""Ratio of the load after the rise to the capacity of what runs."""

BEAT_S = 0.005
"""Seconds between the wake-ups of the task that measures how long the event loop is blocked."""

WAIT_S = 900.0
"""Seconds to wait for a plan before the benchmark gives up."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plan that was found.

    Attributes:
        action: Action that asked for it.
        plan: The plan.
        at_s: Monotonic time.
        worked_s: Seconds of processor that planning took: the compiled plan, the stages of the change, and the solver.
    """

    action: a.Solve
    plan: Plan
    at_s: float
    worked_s: float


@dataclass(slots=True)
class Servers:
    """Executor whose servers do everything at once, and a fleet whose gateway counts arrivals.

    Attributes:
        journal: Journal that records the plans.
        planning: Process that makes the plans.
        rates_rps: Graph -> requests a second that arrive.
        planned: Plans found.
        at_s: Time of the last reading of the metrics.
        worked_s: Seconds of processor that the process had used at the end of the last job.
    """

    journal: Journal
    planning: PlanningProcess
    rates_rps: Mapping[str, float] = field(default_factory=dict)
    planned: list[Found] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)
    at_s: float = field(default_factory=time.monotonic)
    worked_s: float = 0.0

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        """Plans as `Executor.solve` does."""
        job = Job(action, action.wanted.cluster, actual, standby, system.templates(), frozenset({"python"}))
        try:
            planned, running = await self.planning.plan(job), action.running
        finally:
            # Jobs are carried out one after another, so the time since the end of the last one is that of this one.
            last_s, self.worked_s = self.worked_s, _worked_s(self.planning.start().pid)
        if planned is None:
            assert running is not None, "only a review changes nothing"
            return running.plan, running.bundle, ()
        found = Found(action, planned.plan, time.monotonic(), self.worked_s - last_s)
        made = Generation(action.wanted, planned.plan, planned.bundle)
        await asyncio.to_thread(keep, self.journal, made, action.reason, by_load=not action.by_user)
        self.planned.append(found)
        return planned.plan, planned.bundle, planned.stages

    async def stages(
        self, action: a.Solve, plan: Plan, bundle: Bundle, actual: Actual, standby: frozenset[str]
    ) -> tuple[Stage, ...]:
        """Computes the stages of a change as `Executor.stages` does."""
        job = Job(action, action.wanted.cluster, actual, standby, {}, frozenset(), made=(plan, bundle))
        planned = await self.planning.plan(job)
        assert planned is not None
        return planned.stages

    async def run(self, action: a.Action) -> None:
        """Does nothing."""

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns nothing, since no GPU is ever lost."""
        return frozenset()

    async def energy(self) -> Mapping[GpuId, float]:
        """Returns nothing, since there is no GPU."""
        return {}

    async def wait_changed(self, timeout_s: float) -> None:
        """Waits for the timeout, since no machine comes or goes."""
        await asyncio.sleep(timeout_s)

    def server(self, _: str) -> "Servers":
        """Returns the gateway."""
        return self

    @property
    def replication(self) -> "Servers":
        """Standby of the gateway."""
        return self

    def follow(self, actual: Actual, graphs: Iterable[str], generation: int) -> None:
        """Does nothing, since there is no standby."""

    @property
    def client(self) -> "Servers":
        """Client of the gateway."""
        return self

    async def metrics(self, _: tuple[str, ...] = ()) -> list[Sample]:
        """Returns the gateway's counters of requests."""
        now_s = time.monotonic()
        for name, rps in self.rates_rps.items():
            self.counted[name] = self.counted.get(name, 0.0) + rps * (now_s - self.at_s)
        self.at_s = now_s
        return [Sample("jigsaw_arrivals_total", {"graph": n}, count) for n, count in self.counted.items()]


@dataclass(slots=True)
class Pulse:
    """Longest block of an event loop, by the wake-ups of a task.

    Attributes:
        longest_s: Longest delay of a wake-up in seconds, also by other threads and processes.
        worked_s: Most processor time in seconds of the loop's own thread between two wake-ups.
    """

    longest_s: float = 0.0
    worked_s: float = 0.0

    @asynccontextmanager
    async def measured(self) -> AsyncIterator["Pulse"]:
        """Measures inside the `async with` block."""

        async def beat() -> None:
            while True:
                began, began_cpu = time.monotonic(), time.thread_time()
                await asyncio.sleep(BEAT_S)
                self.longest_s = max(self.longest_s, time.monotonic() - began - BEAT_S)
                self.worked_s = max(self.worked_s, time.thread_time() - began_cpu)

        task = asyncio.create_task(beat())
        try:
            yield self
        finally:
            task.cancel()


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Deploys, raises the load of all graphs, and waits for both plans. A smoke run has two graphs."""
    # The controller's process makes the same call when it starts.
    gc.freeze()
    graphs = max(2, effort.count(GRAPHS))
    gpus = GPUS * graphs // GRAPHS
    problem = problems.many_graphs(random.Random(SEED), graphs, gpus)
    wanted = Wanted(
        {w.graph.name: w.graph for w in problem.workloads},
        {w.graph.name: w.demand_rps for w in problem.workloads},
        problem.profiles,
        problem.cluster,
    )
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder, ExitStack() as exits:
        journal = Journal(Path(folder) / "journal.sqlite")
        planning = exits.enter_context(PlanningProcess())
        servers = Servers(journal, planning)
        controller = Controller(cast(Executor, servers), cast(Fleet, servers), journal, Settings(cooldown_s=0.0))
        running = asyncio.create_task(controller.run())
        try:
            return await _cycle(progress, wanted, servers, controller)
        finally:
            controller.leave()
            await running
            journal.close()


def _worked_s(pid: int) -> float:
    """Returns the processor time of a process and of its children that have ended, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


async def _cycle(progress: Progress, wanted: Wanted, servers: Servers, controller: Controller) -> list[Figure]:
    async def until(plans: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(servers.planned) < plans or controller.state.phase is not Phase.READY:
                await controller.wait_changed(0.1)

    size = f"{len(wanted.cluster.gpus)} GPUs, {len(wanted.graphs)} graphs"
    progress(f"cycle: {size}: the first deployment")
    await controller.ask(ChangeRequest(wanted))
    await until(1)
    assert controller.state.running is not None
    if controller.state.running.plan.solver.constructed:
        # On a busy machine, the solver may find no plan in time, and a review follows.
        await until(2)
    known = len(servers.planned)
    capacity = {name: graph.capacity_rps for name, graph in controller.state.running.plan.graphs.items()}
    async with Pulse().measured() as idle:
        await asyncio.sleep(1.0)
    progress("cycle: the load of every graph rises")
    servers.rates_rps = {name: RISE * rps for name, rps in capacity.items()}
    async with Pulse().measured() as pulse:
        while controller.state.phase is Phase.READY:
            await controller.wait_changed(1.0)
        began = time.monotonic()
        await until(known + 2)
    first, improved = servers.planned[known : known + 2]
    assert first.plan.solver.constructed
    assert improved.action.review
    note = (
        f"{size}; from the decision, with simulated servers; {first.plan.slices_used} slices; {first.worked_s:.2f} s "
        f"of processor; load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors"
    )
    found = [figure("controller.cycle_s.first", first.at_s - began, "s", note, at_most=1.0)]
    note = (
        f"{size}; from the first plan, which serves meanwhile; {improved.plan.slices_used} slices; "
        f"{improved.worked_s:.1f} s of processor"
    )
    found.append(figure("controller.cycle_s.improved", improved.at_s - first.at_s, "s", note, at_most=15.0))
    note = (
        f"{size}; longest wait of the event loop from the rise to the improved plan, of which its own thread worked at "
        f"most {pulse.worked_s:.3f} s; {idle.longest_s:.3f} s in a second without load"
    )
    return [*found, figure("controller.cycle_s.block", pulse.longest_s, "s", note, at_most=0.1)]
