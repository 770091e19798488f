"""Replays a trace on several systems and compares them: this project's controller, and the paper's with its subsets.

All systems plan for the same cluster and profiles, serve the same arrivals, pay the same durations for their changes,
and are accounted for alike (`evaluation/simulator/accounting.py`). The servers of all plans are simulated event by
event at steady loads (`evaluation/simulator/curves.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.accounting import Array, Operation, System, operate
from jigsaw_triton.evaluation.simulator.curves import MakeCurve
from jigsaw_triton.evaluation.simulator.memory import TIME_LIMIT_S, PlanMemory
from jigsaw_triton.evaluation.simulator.operation import SOLVE_S, Deployment
from jigsaw_triton.evaluation.simulator.paper import LEAST_RPS, PaperDeployment, largest_if_short
from jigsaw_triton.planner.domain.features import FEATURES, named
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODEL_OF, Formulation, Options, Problem
from jigsaw_triton.planner.transition.moves import Durations


@dataclass(frozen=True, slots=True)
class Contender:
    """A system that takes part.

    Attributes:
        formulation: `exact` for this project's controller and planner, `paper` for the paper's.
        features: Features of the planner.
    """

    formulation: Formulation
    features: str = FEATURES

    def __str__(self) -> str:
        return f"{self.formulation} {named(self.features)}"


OURS = Contender("exact")


@dataclass(frozen=True, slots=True)
class Published:
    """Figures that the authors of JigsawServe report of a subset of features, as text.

    Attributes:
        slices: Compute slices.
        violations: Share of requests that violate the latency SLO.
    """

    slices: str
    violations: str


PUBLISHED: Mapping[str, Published] = {
    "AST": Published("43.3%", "< 0.6%"),
    "AS": Published("a third more", "6.7%"),
    "ST": Published("", "> 10%"),
    "AT": Published("", "> 10%"),
}
"""Features -> figures of JigsawServe (arXiv 2603.08797): four H100, its own applications, steady trials at the 5-minute
means of the Twitter trace, scaled to what the best system carries."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Result of one system.

    Attributes:
        contender: System.
        operation: Load, violations and slices in each second; None if the system can serve no demand.
        reason: Reason why it can serve none; empty if it can.
    """

    contender: Contender
    operation: Operation | None
    reason: str = ""


def start(
    contender: Contender,
    wanted: Wanted,
    first_rps: Mapping[str, float],
    planner: Planner,
    *,
    memory: PlanMemory,
    settings: Settings,
    make_curve: MakeCurve,
) -> System:
    """Returns a system that serves.

    The paper's controller begins with a plan for the first load, or for as much of it as it can carry. This project's
    begins with a plan for next to nothing and grows with the load, because every later plan covers the first demand.

    Args:
        contender: System.
        wanted: Deployment input; its demand, features, formulation and latency model are replaced.
        first_rps: Graph -> load at the start of the trace.
        planner: Planner and compiler.
        memory: Plans of earlier replays.
        settings: Settings of this project's controller.
        make_curve: Function that returns the curve of what a plan's servers answer on time.

    Raises:
        InfeasibleError: The system can serve no demand.
    """
    features, formulation = contender.features, contender.formulation
    paper = formulation == "paper"
    wanted = replace(
        wanted,
        demand_rps=first_rps if paper else dict.fromkeys(wanted.graphs, LEAST_RPS),
        features=features,
        formulation=formulation,
        latency_model=LATENCY_MODEL_OF[formulation],
    )
    if not paper:
        solve = planner.solve
        return Deployment(wanted, lambda a: solve(a, wanted.cluster), settings, Durations(), SOLVE_S, make_curve)

    def plan(problem: Problem, options: Options) -> Plan:
        limited = replace(options, time_limit_s=TIME_LIMIT_S)
        return memory.plan(problem, limited, lambda: largest_if_short(problem, limited, planner.solvers))

    return PaperDeployment(wanted, plan, Durations(), SOLVE_S, make_curve)


def replayed(
    contender: Contender,
    begin: Callable[[Contender], System],
    arrivals: Mapping[str, Array],
    means: Mapping[str, Array],
    progress: Callable[[float], None] = lambda _: None,
) -> Replayed:
    """Simulates a system over a trace.

    Args:
        contender: System.
        begin: Function that starts it.
        arrivals: Graph -> requests in each second, arrays of equal length.
        means: Graph -> mean rate in each second.
        progress: Function that receives the share of the trace that has been simulated.
    """
    try:
        system = begin(contender)
    except InfeasibleError as error:
        return Replayed(contender, None, "; ".join(error.reasons))
    return Replayed(contender, operate(system, arrivals, means, progress))
