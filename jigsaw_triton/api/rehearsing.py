"""Rehearsing a deployment over a trace of arrivals: real tritonservers with emulated models."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import GraphText, Mistakes, PathLike, read_graphs
from jigsaw_triton.api.planning import Demand, Graphs, Profiles, as_profiles, as_sources
from jigsaw_triton.api.profile_files import read_profile_tables
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.request import Request
from jigsaw_triton.api.simulating import Simulated, lasting, scaled, simulate
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, WINDOW_S
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import PERIOD_S
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.rehearsal.clients import Load, due_times, send
from jigsaw_triton.evaluation.rehearsal.emulation import Requests, emulated
from jigsaw_triton.evaluation.rehearsal.outcomes import Array, Outcomes, RequestsBySecond, by_second
from jigsaw_triton.evaluation.rehearsal.record import Sample, operation, sample
from jigsaw_triton.evaluation.simulator.accounting import Operation
from jigsaw_triton.evaluation.traces import Trace
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.servers.ports import free_ports

ADDRESS = "127.0.0.1"
MOST_GENERATIONS = 1000
SAMPLE_S = 1.0
"""Seconds between two looks at the deployment."""

REPORT_S = 10
"""Seconds between two reports of the progress."""

LEAD_S = 0.5
"""Seconds from the first look at the deployment to the first request."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """Result of a rehearsal.

    Attributes:
        operation: Load, capacity and violations in each second on real servers, and the changes of the plan.
        requests: Outcomes of the requests in each second, by graph.
        simulated: Simulation of the same load and first plan.
        workers: Largest number of workers.
        lag_ms: 99th percentile of the milliseconds by which clients sent requests late. If it is not small, the
            machine is too busy for the load.
        host_load: Mean number of processes that were running or waiting for a processor, over the last minute of the
            rehearsal, for each processor of the machine.
    """

    operation: Operation
    requests: Mapping[str, RequestsBySecond]
    simulated: Simulated
    workers: int
    lag_ms: float
    host_load: float

    @property
    def difference(self) -> float:
        """Share of violations, rehearsed minus simulated."""
        return self.operation.violation_share - self.simulated.operation.violation_share


def rehearse(
    graphs: Graphs,
    trace: PathLike | Trace | Mapping[str, PathLike | Trace],
    *,
    speed: float = 1.0,
    scale: float = 1.0,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | None = None,
    profiles: Profiles | None = None,
    options: Options | None = None,
    period_s: float = PERIOD_S,
    forecast: str = DEFAULT_FORECAST,
    window_s: float = WINDOW_S,
    seed: int = 0,
    state: PathLike | None = None,
    progress: Callable[[str], None] = lambda _: None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Rehearsed:
    """Rehearses a deployment over a trace, and simulates the same.

    It deploys the graphs with emulated models on emulated GPUs: controller, gateway and workers are real. Clients send
    Poisson arrivals at the rates of the trace and do not retry. At the end everything is taken down. It must not be
    called from an event loop; use `asyncio.to_thread` there.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders. Their models are not needed.
        trace: Trace of all graphs together in equal parts, or by graph; each a `Trace`, or the path of a CSV file.
        speed: Ratio of the trace's length to the rehearsal's. Rates stay the same and change this much faster.
        scale: Factor by which all rates of the trace are multiplied.
        demand: Demand that every plan covers; see `simulate`.
        gpus: GPUs of one machine, such as `4xA100-80GB`. Either `gpus` or `cluster` is required.
        cluster: Path of a cluster.yaml or its folder.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        options: Options of the planner.
        period_s: Seconds between two reviews of the plan, which save slices once the load has fallen.
        forecast: Forecast of the load: `highest`, `last`, `holt`, `kalman` or `seasonal`.
        window_s: Seconds of load whose peaks the forecast sees, 20 or more.
        seed: Seed of the arrivals.
        state: New or empty folder of the deployment, which keeps its logs; by default a temporary one.
        progress: Function that receives sentences about the progress. If it raises an exception, the rehearsal ends.
        reporter: Recipient of warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        InputError: A trace cannot be read, belongs to no graph, or is too short; or the folder is not empty.
        InfeasibleError: The cluster cannot serve the demand of the first plan.
        JigsawError: The deployment failed.
    """
    _check_empty(state, wording)
    sources, mistakes = as_sources(graphs), Mistakes()
    found = read_graphs(sources, mistakes)
    tables = read_profile_tables(found, mistakes, given=as_profiles(profiles), sources=sources)
    mistakes.raise_if_any()
    found = {name: emulated(graph) for name, graph in found.items()}
    arrivals = _arrivals(scaled(trace, list(found), scale), speed, seed, wording)
    options = options or Options()
    progress("simulating")
    # The simulation comes first, because it finds most mistakes before a server starts.
    simulated = simulate(
        tuple(found.values()),
        arrivals,
        demand=demand,
        gpus=gpus,
        cluster=cluster,
        driver="emulated",
        profiles=tables,
        options=options,
        period_s=period_s,
        forecast=forecast,
        window_s=window_s,
        reporter=reporter,
        wording=wording,
    )
    _check_supported(simulated.wanted, str(cluster), reporter)
    http, grpc, metrics = free_ports(ADDRESS, 3)
    request = Request(
        graphs=tuple(GraphText.of(graph, tables[name]) for name, graph in found.items()),
        gpus=gpus,
        cluster=absolute_path(cluster) if cluster is not None else None,
        driver="emulated",
        demand=simulated.wanted.demand_rps,
        http=http,
        grpc=grpc,
        metrics=metrics,
        address=ADDRESS,
        **lasting(options),
        period_s=period_s,
        forecast=forecast,
        window_s=window_s,
    )
    seconds = len(simulated.operation.slices)
    loads = _loads(found, simulated.operation.arrived, seed)
    with _deployed(request, state, progress, _WarningsOnly(reporter), wording) as deployment:
        began, outcomes, samples = asyncio.run(_play(deployment, f"{ADDRESS}:{grpc}", loads, seconds, progress))
        host_load = os.getloadavg()[0] / (os.cpu_count() or 1)
        revisions = deployment.history(limit=MOST_GENERATIONS)
        progress("taking the deployment down")
    requests = {name: by_second(one, found[name].slo.latency_ms, seconds) for name, one in outcomes.items()}
    return Rehearsed(
        operation=operation(requests, samples, revisions, began=began),
        requests=requests,
        simulated=simulated,
        workers=max(one.workers for one in samples),
        lag_ms=_lag_ms(outcomes.values()),
        host_load=host_load,
    )


def _check_empty(state: PathLike | None, wording: Wording) -> None:
    """Checks that a folder is new or empty, so that a rehearsal never becomes part of a deployment's history."""
    folder = Path(state) if state is not None else None
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = f"name a new folder with {wording.name('state')}"
        raise InputError(
            "a rehearsal needs a folder of its own, and this one is not empty", where=str(folder), hint=hint
        )


def _check_supported(wanted: Wanted, cluster: str, reporter: Reporter) -> None:
    """Checks that a deployment can be rehearsed. Warns of conditions.

    Raises:
        InputError: The deployment has an edge.
    """
    if wanted.cluster.edge is not None:
        raise InputError("a rehearsal has no edge", where=cluster, hint="remove `edge` from a copy of the file")
    for name, graph in wanted.graphs.items():
        if any(task.when is not None for task in graph.tasks.values()):
            reporter.warn(
                f"{name} has conditions, but emulated models return zeros: its conditional tasks run always or never"
            )


def _arrivals(found: Mapping[str, Trace], speed: float, seed: int, wording: Wording) -> dict[str, Trace]:
    """Returns the requests in each second, by graph."""
    played = {name: one.faster(speed) for name, one in found.items()}
    if not all(one.seconds for one in played.values()):
        raise InputError(
            "the rehearsal would be shorter than a second", where=wording.name("speed"), hint="give a smaller speed"
        )
    return {name: one.drawn(seed + number) for number, (name, one) in enumerate(sorted(played.items()))}


def _loads(graphs: Mapping[str, TaskGraph], counts: Mapping[str, Array], seed: int) -> dict[str, Load]:
    loads = {}
    for number, (name, graph) in enumerate(sorted(graphs.items())):
        rng = np.random.default_rng((seed, number))
        due_s, requests = due_times(counts[name], rng), Requests(graph, rng)
        loads[name] = Load(due_s, [requests.draw() for _ in due_s], graph.slo.latency_ms)
    return loads


class _WarningsOnly:
    """Passes warnings on, but not the events of the deployment."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def note(self, _text: str) -> None:
        """Drops a note."""

    def warn(self, text: str) -> None:
        """Passes a warning on."""
        self._reporter.warn(text)


@contextmanager
def _deployed(
    request: Request, state: PathLike | None, progress: Callable[[str], None], reporter: Reporter, wording: Wording
) -> Iterator[Deployment]:
    """Deploys, and takes the deployment down at the end. A temporary folder is removed."""
    folder = Path(state) if state is not None else Path(tempfile.mkdtemp(prefix="jigsaw-rehearsal-"))
    deployment = Deployment(folder)
    try:
        progress("starting the servers")
        rollout = deployment.prepare(request, reporter=reporter, wording=wording)
        deployment.ensure_programs(rollout, progress, reporter)
        deployment.roll_out(rollout, keep_serving=False, reporter=reporter)
        yield deployment
    finally:
        deployment.down(missing_ok=True, reporter=reporter)
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(deployment.paths.run, ignore_errors=True)


def _lag_ms(outcomes: Iterable[Outcomes]) -> float:
    """Returns the 99th percentile of the milliseconds by which requests were sent late; 0 without requests."""
    lags_ms = np.concatenate([one.lag_ms for one in outcomes])
    return float(np.percentile(lags_ms, 99)) if len(lags_ms) else 0.0


async def _play(
    deployment: Deployment, address: str, loads: Mapping[str, Load], seconds: int, progress: Callable[[str], None]
) -> tuple[datetime, dict[str, Outcomes], Sequence[Sample]]:
    """Sends the requests and watches the deployment meanwhile.

    Returns:
        Start of the load, outcomes by graph, and states of the deployment.
    """
    samples = [sample(await asyncio.to_thread(deployment.status), -LEAD_S)]
    begin_s = time.monotonic() + LEAD_S
    began = datetime.fromtimestamp(time.time() + LEAD_S, UTC)

    async def watch() -> None:
        report_s = 0.0
        while True:
            status = await asyncio.to_thread(deployment.status)
            at_s = time.monotonic() - begin_s
            samples.append(sample(status, at_s))
            if at_s >= report_s:
                progress(f"rehearsing: {at_s:.0f} of {seconds} s")
                report_s += REPORT_S
            await asyncio.sleep(SAMPLE_S)

    async def play() -> dict[str, Outcomes]:
        outcomes, _ = await asyncio.gather(
            send(address, loads, begin_s=begin_s), asyncio.sleep(begin_s + seconds - time.monotonic())
        )
        return outcomes

    tasks = playing, watching = asyncio.create_task(play()), asyncio.create_task(watch())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # The watch ends only by an exception, which this raises.
        return began, await playing, samples
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
