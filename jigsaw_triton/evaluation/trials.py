"""Steady trials, as in JigsawServe's evaluation: each load is served by a plan that was made for it.

Nothing changes during a trial, so its result depends on the planner alone. All systems are measured in the
same way (`evaluation/simulator/curves.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.replay import Contender
from jigsaw_triton.evaluation.simulator.curves import MakeCurve, within_processors
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem


@dataclass(frozen=True, slots=True)
class Trial:
    """A load, and how it was served.

    Attributes:
        load_rps: Requests a second of all graphs together.
        violations_rps: Requests a second that were late or refused.
        slices: Compute slices of the plan.
        accuracy: Lowest accuracy that the plan has for a graph.
    """

    load_rps: float
    violations_rps: float
    slices: int
    accuracy: float

    @property
    def violation_share(self) -> float:
        """Share of the requests that were late or refused."""
        return self.violations_rps / self.load_rps


@dataclass(frozen=True, slots=True)
class Trials:
    """Trials of one system.

    Attributes:
        contender: System.
        trials: Trials in the order of the loads; empty if the system can serve no demand.
        reason: Reason why it can serve none; empty if it can.
    """

    contender: Contender
    trials: tuple[Trial, ...]
    reason: str = ""

    @property
    def violation_share(self) -> float:
        """Share of all requests that were late or refused. Trials last equally long."""
        return sum(one.violations_rps for one in self.trials) / sum(one.load_rps for one in self.trials)

    @property
    def mean_slices(self) -> float:
        """Mean compute slices."""
        return float(np.mean([one.slices for one in self.trials]))

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy."""
        return float(np.mean([one.accuracy for one in self.trials]))


def try_loads(
    contender: Contender,
    problem: Problem,
    loads: Sequence[Mapping[str, float]],
    plan: Callable[[Problem], Plan],
    make_curve: MakeCurve,
    progress: Callable[[float], None] = lambda _: None,
) -> Trials:
    """Runs a trial of one system at each load.

    Args:
        contender: System.
        problem: Problem, whose demands are replaced.
        loads: Requests a second by graph, for each trial.
        plan: Planner of the system. It plans for as much as the cluster carries if the demand is larger.
        make_curve: Function that returns the curve of what a plan's servers answer on time.
        progress: Function that receives the share of the trials that are done.
    """
    found = []
    for number, load in enumerate(loads):
        progress(number / len(loads))
        workloads = tuple(Workload(w.graph, load[w.graph.name]) for w in problem.workloads)
        try:
            asked = Problem(workloads, problem.cluster, problem.profiles)
            made = plan(asked)
        except InfeasibleError as error:
            return Trials(contender, (), "; ".join(error.reasons))
        curves = {
            w.graph.name: make_curve(
                w.graph, made.gpus, problem.profiles[w.graph.name], made.graphs[w.graph.name].capacity_rps
            )
            for w in workloads
        }
        curves = within_processors(curves, made, asked)
        violations_rps = sum(curves[w.graph.name].violations_rps(w.demand_rps) for w in workloads)
        accuracy = min(graph.accuracy for graph in made.graphs.values())
        found.append(Trial(sum(load.values()), violations_rps, made.slices_used, accuracy))
    return Trials(contender, tuple(found))
