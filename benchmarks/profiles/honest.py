"""Demand that a plan for two boards of this machine's processor promises, relative to what the machine then carries.

The slices of the board `cpu` share the machine's processors. Each application is profiled, planned for its largest
demand, deployed, and saturated by clients that send the next request when the last one is answered.

The clients run on the same machine, and so may other programs. So the machine carries the answers a second divided by
the share of its processors that the servers used meanwhile. That share is in the note: where it is far below what the
clients leave, the servers had to wait for others, or for each other.
"""

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.api.machine import usable_processors
from jigsaw_triton.applications import fetch_application
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.load import request_tensors
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import make_largest_plan
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.spec.load import load_graph

APPLICATIONS = ("digits", "docread")
BOARD, BOARDS = "cpu", 2
PROFILE_S = 3.0
WARM_UP_S = 3.0
RUN_S = 12.0
EASE = 10.0
"""Factor of the SLO's latency, so that there is a plan even if the machine is busy while it is profiled."""

IN_FLIGHT = 8
"""Requests in flight for each request that the workers hold: enough to keep all of them busy."""

SAMPLE_LINES = 30.0
"""Lines on docread's sample page, as its detectors find them: 29 or 30."""

MOST_CLIENTS = 256
GOAL_LEAST, GOAL_MOST = 0.9, 1.1
_PROFILE_TIMEOUT_S = 300


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures both applications, one after the other; a smoke run measures only the first."""
    names = APPLICATIONS if effort.rounds > 1 else APPLICATIONS[:1]
    return [found for name in names for found in system.run(_application(name, progress, effort), 600.0)]


async def _application(name: str, progress: Progress, effort: Effort) -> list[Figure]:
    source = applications_dir() / name
    fetch_application(source, progress)
    graph = build_graph(load_graph(source), templates=frozenset(system.templates()), require_files=True)
    graph = _of_sample(name, replace(graph, slo=replace(graph.slo, latency_ms=EASE * graph.slo.latency_ms)))
    cluster = replace(system.cluster(BOARD, BOARDS), processors=usable_processors())
    table = read_profiles(source)
    progress(f"cpu_honest: profiling {name}")
    table = _profiled(source, _largest(graph, table, cluster), effort)
    plan = _largest(graph, table, cluster)
    alone = _largest(graph, table, replace(cluster, processors=None))
    promised_rps = plan.graphs[name].demand_rps
    rates_rps, own_shares, shares = [], [], []
    async with system.system(find_installation(), SETTINGS) as running:
        progress(f"cpu_honest: deploying {name} for {promised_rps:.4g} requests/s on {plan.slices_used} slices")
        await running.deploy(Wanted({name: graph}, {name: promised_rps}, {name: table}, cluster))
        tensors, _ = request_tensors(graph)
        request = client.request(name, {key: np.ascontiguousarray(value[None]) for key, value in tensors.items()})
        clients = min(MOST_CLIENTS, IN_FLIGHT * _held(plan.graphs[name]))
        for number in range(effort.rounds):
            progress(f"cpu_honest: {name}, round {number + 1} of {effort.rounds}, {clients} clients")
            before_s, started_s = (time.process_time(), running.processor_s()), time.monotonic()
            rate_rps = await client.closed_loop(
                cluster.gateway,
                request,
                clients,
                warm_up_s=effort.seconds(WARM_UP_S),
                seconds=effort.seconds(RUN_S),
            )
            processors_s = usable_processors() * (time.monotonic() - started_s)
            own_shares.append((time.process_time() - before_s[0]) / processors_s)
            shares.append((running.processor_s() - before_s[1]) / processors_s)
            rates_rps.append(rate_rps)
    if not min(rates_rps):
        raise ServerError("no request was answered", where=name)
    return _figures(name, plan, alone, rates_rps, own_shares, shares)


def _largest(graph: TaskGraph, table: ProfileTable, cluster: Cluster) -> Plan:
    """Returns the plan of the largest demand."""
    return make_largest_plan(Problem((Workload(graph, 1.0),), cluster, {graph.name: table}))


def _of_sample(name: str, graph: TaskGraph) -> TaskGraph:
    """Returns an application's graph with the rows that its sample has; its own are means over a labelled set."""
    if name != "docread":
        return graph
    detect = graph.tasks["detect"]
    variants = tuple(replace(v, yields=dict.fromkeys(v.yields, SAMPLE_LINES)) for v in detect.variants)
    return replace(graph, tasks={**graph.tasks, detect.name: replace(detect, variants=variants)})


def _held(plan: GraphPlan) -> int:
    """Returns the number of requests that the workers hold, in all tasks together."""
    held = (
        sum(s.count * s.instances * s.batch for s in task.segments) * plan.demand_rps / task.rate_rps
        for task in plan.tasks.values()
    )
    return math.ceil(sum(held))


def _profiled(source: Path, plan: Plan, effort: Effort) -> ProfileTable:
    """Measures the configurations of a plan, alone and with as many instances as there are processors.

    Half of the batch is measured too, because batches are not full. A smoke run measures one instance and the batch.
    """
    (graph,) = plan.graphs.values()
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
        file = Path(folder) / "profiles.csv"
        for task, part in graph.tasks.items():
            for segment in part.segments:
                counts = sorted({1, segment.instances, round(usable_processors())})[: effort.count(3)]
                batches = sorted({max(1, segment.batch // 2), segment.batch})[-effort.count(2) :]
                options: Mapping[str, str] = {
                    "--task": task,
                    "--variant": segment.variant,
                    "--slices": segment.slice,
                    "--instances": ",".join(map(str, counts)),
                    "--points": "all",
                    "--batches": ",".join(map(str, batches)),
                    "--seconds": str(effort.seconds(PROFILE_S)),
                    "-O": str(file),
                }
                command = [str(Path(sys.executable).with_name("jigsaw-triton")), "profile", str(source)]
                command += [word for pair in options.items() for word in pair]
                done = subprocess.run(command, capture_output=True, text=True, timeout=_PROFILE_TIMEOUT_S)
                if done.returncode:
                    raise ServerError(f"`profile` failed: {done.stderr[-500:]}", where=source.name)
        return read_profiles(file)


def _figures(
    name: str, plan: Plan, alone: Plan, rates_rps: list[float], own_shares: list[float], shares: list[float]
) -> list[Figure]:
    promised_rps, apart_rps = plan.graphs[name].demand_rps, alone.graphs[name].demand_rps
    carried_rps = [rate / share for rate, share in zip(rates_rps, shares, strict=True)]
    ratios = [promised_rps / rate for rate in carried_rps]
    ratio = median(ratios)
    note = (
        f"promised {promised_rps:.4g} requests/s on {plan.slices_used} slices, carried {median(carried_rps):.4g} "
        f"({median(rates_rps):.4g} answers/s with {median(shares):.0%} of the processors; clients took "
        f"{median(own_shares):.0%}), median of {len(ratios)} rounds, {spread(ratios)}; baseline: the same if each "
        "slice carried what it carries alone, ratio"
    )
    return [
        figure(
            f"profiles.cpu_honest.{name}",
            ratio,
            "ratio",
            note,
            at_least=GOAL_LEAST,
            at_most=GOAL_MOST,
            baseline=apart_rps / median(carried_rps),
        )
    ]
