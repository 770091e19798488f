"""Replaying a trace on several systems, to compare them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from jigsaw_triton.api.files import PathLike
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import Graphs, Profiles, as_profiles, as_sources
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.settings import check_settings
from jigsaw_triton.api.simulating import FIRST_S, arrivals_of, remembering, scaled
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, WINDOW_S
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.evaluation.replay import OURS, Contender, Replayed, replayed, start
from jigsaw_triton.evaluation.simulator.accounting import System
from jigsaw_triton.evaluation.simulator.curves import Measured
from jigsaw_triton.evaluation.simulator.events import event_violations
from jigsaw_triton.evaluation.simulator.memory import TIME_LIMIT_S, PlanMemory
from jigsaw_triton.evaluation.traces import Trace
from jigsaw_triton.evaluation.trials import Trials, try_loads
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODEL_OF, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, largest_demand, make_largest_plan, make_plan
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.resources import templates_dir

PEAK = 0.85
"""Share of the cluster's capacity that the peak of the trace needs by default."""

_DIGITS = 6
"""Decimal digits to which the ratios of two demands must agree to count as equal."""


@dataclass(frozen=True, slots=True)
class Check:
    """Violations in the first part of a trace, as shares of all requests.

    Attributes:
        fluid: Share by the fluid accounting.
        events: Share by the event-by-event simulation.
    """

    fluid: float
    events: float


@dataclass(frozen=True, slots=True)
class Replay:
    """Results of all systems on one trace.

    Attributes:
        wanted: Deployment input.
        scale: Factor by which the rates of the trace were multiplied.
        systems: Results, in the order of the contenders.
        checks: Contender -> check of its accounting; empty if none was asked for.
    """

    wanted: Wanted
    scale: float
    systems: tuple[Replayed, ...]
    checks: Mapping[Contender, Check]


@dataclass(frozen=True, slots=True)
class SteadyTrials:
    """Trials of all systems at the same loads.

    Attributes:
        wanted: Deployment input.
        scale: Factor by which the rates of the trace were multiplied.
        systems: Trials, in the order of the contenders.
    """

    wanted: Wanted
    scale: float
    systems: tuple[Trials, ...]


def replay(
    graphs: Graphs,
    trace: PathLike | Trace | Mapping[str, PathLike | Trace],
    *,
    contenders: Sequence[Contender] = (OURS, Contender("paper")),
    peak: float = PEAK,
    scale: float | None = None,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    forecast: str = DEFAULT_FORECAST,
    window_s: float = WINDOW_S,
    settings: Settings | None = None,
    check_s: int = 0,
    seed: int = 0,
    progress: Callable[[Contender, float], None] = lambda _contender, _part: None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Replay:
    """Replays a trace on simulated systems: this project's controller and the paper's, with any features.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        trace: Trace of all graphs together in equal parts, or by graph; each a `Trace`, or the path of a CSV file.
        contenders: Systems to simulate.
        peak: Share of the cluster's capacity that the highest rate of the trace needs after scaling.
        scale: Factor by which all rates of the trace are multiplied, instead of `peak`.
        gpus: GPUs of one machine, such as `4xA100-80GB`. Either `gpus` or `cluster` is required.
        cluster: A cluster, or the path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        forecast: Forecast of the load: `highest`, `last`, `holt`, `kalman` or `seasonal`.
        window_s: Seconds of load whose peaks the forecast sees, 20 or more.
        settings: Settings of this project's controller.
        check_s: Seconds at the start of the trace to simulate event by event as well; 0 for none.
        seed: Seed of the arrivals within intervals that are longer than a second.
        progress: Function that receives the system that is simulated, and the share of the trace that has been.
        reporter: Recipient of notes and warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        InputError: A trace cannot be read, or belongs to no graph.
        InfeasibleError: The cluster can serve no demand.
    """
    check_settings(forecast=forecast, window_s=window_s, wording=wording)
    wanted = _read(
        graphs, gpus=gpus, cluster=cluster, driver=driver, profiles=profiles, reporter=reporter, wording=wording
    )
    wanted = replace(wanted, forecast=forecast, window_s=window_s)
    traces = scaled(trace, list(wanted.graphs), 1.0)
    with lasting_solvers() as solvers:
        scale = scale if scale is not None else _scale(wanted, traces, peak, solvers)
        traces = {name: one.scaled(scale) for name, one in traces.items()}
        arrivals = arrivals_of(traces, seed)
        means = {name: one.faster(1.0).rps[: len(arrivals[name])] for name, one in traces.items()}
        first_rps = {name: max(1e-3, float(np.mean(counts[:FIRST_S]))) for name, counts in arrivals.items()}
        memory = PlanMemory()
        templates = load_templates(templates_dir())
        settings = settings or Settings()
        planner = Planner(templates, frozenset({"python"}), str, solvers, settings, remembering(memory))
        make_curve = Measured(seed)

        def begin(contender: Contender) -> System:
            return start(
                contender,
                wanted,
                first_rps,
                planner,
                memory=memory,
                settings=settings,
                make_curve=make_curve,
            )

        systems = tuple(
            replayed(contender, begin, arrivals, means, partial(progress, contender)) for contender in contenders
        )
        head = {name: counts[:check_s] for name, counts in arrivals.items()}
        checks = {
            one.contender: Check(
                one.operation.first(check_s).violation_share,
                event_violations(begin(one.contender), wanted.graphs, wanted.profiles, head, seed=seed),
            )
            for one in systems
            if one.operation is not None and check_s
        }
    return Replay(wanted, scale, systems, checks)


def steady_trials(
    graphs: Graphs,
    trace: PathLike | Trace | Mapping[str, PathLike | Trace],
    *,
    contenders: Sequence[Contender] = (OURS, Contender("paper")),
    peak: float = 1.0,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    seed: int = 0,
    progress: Callable[[Contender, float], None] = lambda _contender, _part: None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> SteadyTrials:
    """Runs a steady trial of each system at the mean rate of each interval of a trace, as in JigsawServe's evaluation.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        trace: Trace of all graphs together in equal parts, or by graph; each a `Trace`, or the path of a CSV file.
            Intervals without requests are left out.
        contenders: Systems to compare.
        peak: Share of the cluster's capacity that the highest rate of the trace needs after scaling.
        gpus: GPUs of one machine, such as `4xA100-80GB`. Either `gpus` or `cluster` is required.
        cluster: A cluster, or the path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        seed: Seed of the simulated arrivals.
        progress: Function that receives the system that is tried, and the share of its trials that are done.
        reporter: Recipient of notes and warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        InputError: A trace cannot be read, belongs to no graph, or has no requests, or traces differ in the length or
            number of their intervals.
        InfeasibleError: The cluster can serve no demand.
    """
    wanted = _read(
        graphs, gpus=gpus, cluster=cluster, driver=driver, profiles=profiles, reporter=reporter, wording=wording
    )
    traces = scaled(trace, list(wanted.graphs), 1.0)
    loads = _loads(traces)
    with lasting_solvers() as solvers:
        scale = _scale(wanted, traces, peak, solvers)
        loads = [{name: scale * rps for name, rps in load.items()} for load in loads]
        memory, make_curve, problem = PlanMemory(), Measured(seed), make_problem(wanted)

        def trials(contender: Contender) -> Trials:
            options = Options(
                time_limit_s=TIME_LIMIT_S,
                features=contender.features,
                formulation=contender.formulation,
                latency_model=LATENCY_MODEL_OF[contender.formulation],
            )

            plan = _planner(options, memory, solvers)
            return try_loads(contender, problem, loads, plan, make_curve, partial(progress, contender))

        return SteadyTrials(wanted, scale, tuple(map(trials, contenders)))


def _read(
    graphs: Graphs,
    *,
    gpus: str | None,
    cluster: PathLike | Cluster | None,
    driver: Driver | None,
    profiles: Profiles | None,
    reporter: Reporter,
    wording: Wording,
) -> Wanted:
    """Reads a deployment that is only simulated, and whose demand the trace decides."""
    return read_wanted(
        as_sources(graphs),
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand={},
        default_rps=1.0,
        profiles=as_profiles(profiles),
        to_serve=False,
        reporter=reporter,
        wording=wording,
    )


def _planner(options: Options, memory: PlanMemory, solvers: SolverFactory) -> Callable[[Problem], Plan]:
    """Returns a planner that plans for as much as the cluster carries if the demand is larger."""
    largest: dict[tuple[float, ...], Plan] = {}

    def plan(problem: Problem) -> Plan:
        demands = [w.demand_rps for w in problem.workloads]
        # The largest plan depends on the ratios of the demands alone.
        ratios = tuple(round(rps / sum(demands), _DIGITS) for rps in demands)
        known = largest.get(ratios)
        if known is None or sum(demands) < sum(graph.demand_rps for graph in known.graphs.values()):
            try:
                return memory.plan(problem, options, lambda: make_plan(problem, options, solvers=solvers))
            except InfeasibleError:
                known = known or make_largest_plan(problem, options, solvers=solvers)
                largest[ratios] = known
        return known

    return plan


def _loads(traces: Mapping[str, Trace]) -> list[dict[str, float]]:
    """Returns the rates by graph of each interval in which all graphs have requests.

    Raises:
        InputError: There is no such interval, or the intervals of two traces differ in length or number.
    """
    if len({one.step_s for one in traces.values()}) > 1:
        raise InputError(
            "the traces have intervals of different lengths", hint="give traces with intervals of one length"
        )
    lengths = {name: len(one.rps) for name, one in traces.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise InputError(
            f"the traces have different numbers of intervals ({counts})", hint="cut the longer ones to the shortest"
        )
    rates = zip(*(one.rps.tolist() for one in traces.values()), strict=True)
    found = [dict(zip(traces, row, strict=True)) for row in rates if min(row) > 0]
    if not found:
        raise InputError("the trace has no requests", hint="give a trace with rates above 0")
    return found


def _scale(wanted: Wanted, traces: Mapping[str, Trace], peak: float, solvers: SolverFactory) -> float:
    """Returns the factor of all rates with which the highest of each graph need this share of the capacity."""
    shape = replace(wanted, demand_rps={name: max(1e-3, float(t.rps.max())) for name, t in traces.items()})
    largest = largest_demand(make_problem(shape), Options(time_limit_s=TIME_LIMIT_S), solvers=solvers).rps
    return peak * min(rps / shape.demand_rps[name] for name, rps in largest.items())
