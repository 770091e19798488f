"""Simulating a deployment over a trace of arrivals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.api.files import PathLike
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import Demand, Graphs, Profiles, as_mapping, as_profiles, as_sources
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.settings import check_settings
from jigsaw_triton.api.wanted import read_wanted
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.actions import Solve
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, WINDOW_S
from jigsaw_triton.controller.core.generation import PLANNING, Wanted
from jigsaw_triton.controller.core.settings import PERIOD_S, Settings
from jigsaw_triton.controller.solving import Planner, planned
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.simulator.accounting import Operation
from jigsaw_triton.evaluation.simulator.curves import Measured
from jigsaw_triton.evaluation.simulator.curves import planned as planned_curve
from jigsaw_triton.evaluation.simulator.memory import TIME_LIMIT_S, PlanMemory
from jigsaw_triton.evaluation.simulator.operation import simulate_operation
from jigsaw_triton.evaluation.traces import Trace, read_trace
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.resources import templates_dir

FIRST_S = 60
"""Seconds at the start of a trace whose mean rate is the demand of the first plan by default."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Result of a simulation.

    Attributes:
        wanted: Deployment input.
        operation: Load, capacity and violations in each second, and the changes of the plan.
        plan: Plan with the most slices, of those that were made.
    """

    wanted: Wanted
    operation: Operation
    plan: Plan


def simulate(
    graphs: Graphs,
    trace: PathLike | Trace | Mapping[str, PathLike | Trace],
    *,
    scale: float = 1.0,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    options: Options | None = None,
    settings: Settings | None = None,
    period_s: float = PERIOD_S,
    forecast: str = DEFAULT_FORECAST,
    window_s: float = WINDOW_S,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _: None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Simulated:
    """Simulates a deployment over a trace: the controller that `deploy` starts, on servers that exist only as numbers.

    Violations are the requests that servers of the plan answer late or refuse. How many these are at each load is
    found by simulating the servers event by event. If slices are shared (`Options.share`), it is the planner's capacity
    instead, at which the SLO holds: a real deployment answers more of them on time.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        trace: Trace of all graphs together in equal parts, or by graph; each a `Trace`, or the path of a CSV file.
        scale: Factor by which all rates of the trace are multiplied.
        demand: Demand that every plan covers; by default the mean rate of the trace's first minute, with the headroom
            that the controller adds to measured rates.
        gpus: GPUs of one machine, such as `4xA100-80GB`. Either `gpus` or `cluster` is required.
        cluster: A cluster, or the path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        options: Options of the planner.
        settings: Settings of the controller.
        period_s: Seconds between two reviews of the plan, which save slices once the load has fallen.
        forecast: Forecast of the load: `highest`, `last`, `holt`, `kalman` or `seasonal`.
        window_s: Seconds of load whose peaks the forecast sees, 20 or more.
        seed: Seed of the arrivals within intervals that are longer than a second.
        progress: Function that receives the share of the trace that has been simulated, once for each of its minutes.
        reporter: Recipient of notes and warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        InputError: A trace cannot be read, or belongs to no graph.
        InfeasibleError: The cluster cannot serve the demand of the first plan.
    """
    check_settings(period_s=period_s, forecast=forecast, window_s=window_s, wording=wording)
    wanted = read_wanted(
        as_sources(graphs),
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand=as_mapping(demand),
        default_rps=0.0 if demand is None else None,
        profiles=as_profiles(profiles),
        to_serve=False,
        reporter=reporter,
        wording=wording,
    )
    arrivals = arrivals_of(scaled(trace, list(wanted.graphs), scale), seed)
    if demand is None:
        headroom = (settings or Settings()).headroom
        first = {name: headroom * float(counts[:FIRST_S].mean()) for name, counts in arrivals.items()}
        wanted = replace(wanted, demand_rps={name: max(rps, 1e-3) for name, rps in first.items()})
    wanted = replace(wanted, **lasting(options or Options()), period_s=period_s, forecast=forecast, window_s=window_s)
    with lasting_solvers() as solvers:
        remembered = remembering(PlanMemory())
        backends = frozenset({"python"})
        planner = Planner(load_templates(templates_dir()), backends, str, solvers, settings or Settings(), remembered)
        plans: list[Plan] = []

        def solve(action: Solve) -> tuple[Plan, Bundle]:
            solved = planner.solve(action, wanted.cluster)
            plans.append(solved[0])
            return solved

        operation = simulate_operation(
            wanted,
            arrivals,
            solve,
            settings=settings,
            # Only the planner knows that models on a shared slice wait for each other.
            make_curve=planned_curve if wanted.share else Measured(seed),
            progress=progress,
        )
    return Simulated(wanted, operation, max(plans, key=lambda plan: plan.slices_used))


def lasting(options: Options) -> dict[str, Any]:
    """Returns the options of the planner that a deployment keeps, as arguments of `Wanted` and of `Request`."""
    return {name: getattr(options, name) for name in PLANNING}


def remembering(memory: PlanMemory) -> Callable[[Problem, Options, Solve, SolverFactory], Plan]:
    """Returns the controller's function that makes a plan, with a memory for those that the solver makes."""

    def plan(problem: Problem, options: Options, action: Solve, solvers: SolverFactory) -> Plan:
        limited = replace(options, time_limit_s=TIME_LIMIT_S)
        if action.first:
            return planned(problem, limited, action, solvers)
        return memory.plan(problem, limited, lambda: planned(problem, limited, action, solvers))

    return plan


def scaled(
    trace: PathLike | Trace | Mapping[str, PathLike | Trace], graphs: list[str], scale: float
) -> dict[str, Trace]:
    """Reads the trace of each graph and multiplies its rates by a scale.

    Args:
        trace: Trace of all graphs together in equal parts, or by graph.
        graphs: Names of the graphs.
        scale: Factor of all rates.

    Raises:
        InputError: A trace cannot be read, or belongs to no graph.
    """
    if isinstance(trace, Mapping):
        for name in sorted(trace.keys() ^ set(graphs), key=lambda name: (name not in trace, name)):
            message = "there is no such graph" if name in trace else "the graph has no trace"
            raise InputError(message, where=f"trace of {name}", hint=f"give one trace for each of {', '.join(graphs)}")
        return {name: _loaded(one).scaled(scale) for name, one in trace.items()}
    return dict.fromkeys(graphs, _loaded(trace).scaled(scale / len(graphs)))


def arrivals_of(traces: Mapping[str, Trace], seed: int) -> dict[str, NDArray[np.float64]]:
    """Returns the arrivals of each graph in each second, for as long as all traces last."""
    counts = {name: one.counts(seed + number) for number, (name, one) in enumerate(sorted(traces.items()))}
    seconds = min(len(one) for one in counts.values())
    return {name: one[:seconds] for name, one in counts.items()}


def _loaded(trace: PathLike | Trace) -> Trace:
    return trace if isinstance(trace, Trace) else read_trace(Path(trace))
