"""Ablation study of the planner's features: subsets of them, in both formulations, on one graph and cluster."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.features import FEATURES, includes
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Formulation, Options, Problem
from jigsaw_triton.planner.placement.greedy import greedy
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from jigsaw_triton.planner.search.solve import LargestDemand, SolverFactory, allot, largest_demand
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.profiles.table import ProfileTable

PUBLISHED: Mapping[str, float] = {
    "": 1.0,
    "T": 1.1,
    "A": 1.6,
    "AT": 1.9,
    "S": 5.25,
    "ST": 7.8,
    "AS": 12.1,
    "AST": 21.6,
}
"""Largest demand of each subset relative to no features, as published for JigsawServe.

Source: arXiv 2603.08797, with the paper's own applications on 120 GPUs.
"""

PUBLISHED_GAIN = 11.3
"""Largest demand of A+S+T relative to A+T, as published; the rounded figures of `PUBLISHED` give 11.4."""

PAPER_SUBSETS = tuple(PUBLISHED)
"""Subsets of the features that the paper compares."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Compute slices that serve a demand.

    Attributes:
        used: Number of compute slices.
        unplaced: Slices among them that the paper's greedy placement cannot place; 0 in the exact formulation.
        proven: True if `used` is proven minimal; False if the time limit came first.
    """

    used: int
    unplaced: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Case:
    """Results for one subset of features in one formulation.

    Attributes:
        features: Subset of features.
        formulation: Formulation of the planning problem.
        largest_rps: Largest demand in requests per second that the cluster can serve, before placement; None if it can
            serve none.
        proven: True if `largest_rps` is proven maximal; False if the time limit came first.
        at_largest: Slices that the largest demand needs; None if the cluster can serve none, or if no plan was found
            within the time limit.
        at_common: Slices that the ablation's common demand needs; None under the same conditions.
        reason: Reason why the cluster can serve no demand; empty if it can.
    """

    features: str
    formulation: Formulation
    largest_rps: float | None
    proven: bool
    at_largest: Slices | None
    at_common: Slices | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ablation:
    """Results for subsets of features in both formulations.

    Attributes:
        graph: Name of the graph.
        common_rps: Largest demand in requests per second that all cases can serve, except those that can serve none.
        slices_total: Compute slices of the cluster.
        cases: Results, by formulation and then by subset in the order asked for.
    """

    graph: str
    common_rps: float
    slices_total: int
    cases: tuple[Case, ...]

    @property
    def subsets(self) -> tuple[str, ...]:
        """Subsets of the features, in order."""
        return tuple(dict.fromkeys(case.features for case in self.cases))

    def case(self, features: str, formulation: Formulation) -> Case:
        """Returns the results for one subset in one formulation."""
        return next(c for c in self.cases if (c.features, c.formulation) == (features, formulation))

    def gain(self, features: str, formulation: Formulation) -> float | None:
        """Returns the largest demand relative to that without features in the same formulation.

        The gain is None if either case can serve no demand.
        """
        most, least = (self.case(f, formulation).largest_rps for f in (features, ""))
        return most / least if most is not None and least is not None else None

    def to_json(self) -> dict[str, Any]:
        """Returns the results as a JSON document, with each case's gain."""
        document = asdict(self)
        for entry, case in zip(document["cases"], self.cases, strict=True):
            entry["gain"] = self.gain(case.features, case.formulation)
        return document


@dataclass(frozen=True, slots=True)
class SpatialGain:
    """Gain of spatial partitioning (S), or of a part of it.

    Attributes:
        with_s_rps: Largest demand in requests a second with it.
        without_rps: Largest demand of A+T.
        proven: True if both are proven maximal; False if the time limit came first.
    """

    with_s_rps: float
    without_rps: float
    proven: bool

    @property
    def gain(self) -> float:
        """Largest demand with it over that of A+T."""
        return self.with_s_rps / self.without_rps


def ablation(
    problem: Problem,
    options: Options,
    *,
    subsets: Sequence[str] = PAPER_SUBSETS,
    progress: Callable[[str], object] = lambda _: None,
    solvers: SolverFactory = SolverProcess,
) -> Ablation:
    """Plans a graph with subsets of the features in both formulations.

    All cases use the paper's latency model and the full profiled throughput, so that they differ in features and
    formulation only.

    Args:
        problem: Problem with one graph, whose demand is ignored.
        options: Time limit of each solve and name of the solver. The options that the study varies are ignored.
        subsets: Subsets of the features in canonical form, among them the empty one.
        progress: Callback that receives a description of each step.
        solvers: Factory of solvers by name.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: No case can serve any demand.
        JigsawError: No largest demand was found within the time limit, or no solver gave a valid answer.
    """
    (workload,) = problem.workloads
    name = workload.graph.name
    options = replace(options, latency_model="2p95", utilisation=1.0)
    settings = [replace(options, features=f, formulation=formulation) for formulation in FORMULATIONS for f in subsets]
    outcomes: list[LargestDemand | InfeasibleError] = []
    progress(f"{name}: finding the largest demands")
    for setting in settings:
        try:
            solved = largest_demand(problem, setting, solvers=solvers)
            outcomes.append(
                solved if solved.proven else _at_least(solved, setting, zip(settings, outcomes, strict=False))
            )
        except InfeasibleError as error:
            outcomes.append(error)
    found = [outcome.rps[name] for outcome in outcomes if isinstance(outcome, LargestDemand)]
    if not found:
        raise next(error for error in outcomes if isinstance(error, InfeasibleError))
    common_rps = min(found)

    progress(f"{name}: counting the slices that the largest demands and {common_rps:.4g} requests/s need")

    def case(setting: Options, outcome: LargestDemand | InfeasibleError) -> Case:
        features, formulation = setting.features, setting.formulation
        if isinstance(outcome, InfeasibleError):
            return Case(features, formulation, None, True, None, None, "; ".join(outcome.reasons))
        at_largest, at_common = (_slices(problem, setting, rps, solvers) for rps in (outcome.rps[name], common_rps))
        return Case(features, formulation, outcome.rps[name], outcome.proven, at_largest, at_common)

    cases = tuple(case(setting, outcome) for setting, outcome in zip(settings, outcomes, strict=True))
    return Ablation(name, common_rps, problem.cluster.compute_slices, cases)


def _at_least(
    solved: LargestDemand, setting: Options, others: Iterable[tuple[Options, LargestDemand | InfeasibleError]]
) -> LargestDemand:
    """Returns the largest demand, or that of fewer features if it is larger: the time limit came first for more."""
    fewer = (
        outcome
        for other, outcome in others
        if other.formulation == setting.formulation
        and includes(setting.features, other.features)
        and isinstance(outcome, LargestDemand)
    )
    (name,) = solved.rps
    return replace(solved, rps=max((solved, *fewer), key=lambda one: one.rps[name]).rps)


def with_batches_up_to(problem: Problem, largest: int) -> Problem:
    """Returns the problem without profiles of larger batches.

    Raises:
        InputError: A task has no profile of such a batch.
    """
    profiles = {}
    for name, table in problem.profiles.items():
        kept = [row for row in table.rows() if row.key.batch <= largest]
        for task in sorted({row.key.task for row in table.rows()} - {row.key.task for row in kept}):
            least = min(row.key.batch for row in table.rows(task=task))
            raise InputError(
                f"the smallest profiled batch is {least}, and the largest batch allowed is {largest}",
                where=f"{name}: task {task}",
                hint=f"allow batches of {least}, or profile smaller ones",
            )
        profiles[name] = ProfileTable(kept)
    return replace(problem, profiles=profiles)


def _slices(problem: Problem, options: Options, rps: float, solvers: SolverFactory) -> Slices | None:
    (workload,) = problem.workloads
    try:
        found = allot(replace(problem, workloads=(Workload(workload.graph, rps),)), options, solvers=solvers)
    except OutOfTimeError:
        return None
    unplaced = greedy(problem.cluster, found.counts).unplaced_slices if options.formulation == "paper" else 0
    return Slices(found.slices, unplaced, found.outcome.stages[0].proven)


def spatial_gain(
    problem: Problem, options: Options, *, features: str = FEATURES, solvers: SolverFactory = SolverProcess
) -> SpatialGain | None:
    """Returns the largest demands with spatial partitioning and with A+T, in the paper's formulation.

    Args:
        problem: Problem with one graph, whose demand is ignored.
        options: Time limit of each solve and name of the solver. The options that the study varies are ignored.
        features: Features with spatial partitioning, or with a part of it.
        solvers: Factory of solvers by name.

    Returns:
        The demands; None if the cluster can serve no demand without S.
    """
    (workload,) = problem.workloads
    options = replace(options, formulation="paper", latency_model="2p95", utilisation=1.0)
    try:
        found = [largest_demand(problem, replace(options, features=f), solvers=solvers) for f in (features, "AT")]
    except InfeasibleError:
        return None
    with_s, without = (one.rps[workload.graph.name] for one in found)
    return SpatialGain(with_s, without, all(one.proven for one in found))


def mean_gain(ablations: Sequence[Ablation], features: str, formulation: Formulation) -> float | None:
    """Returns the geometric mean of the graphs' gains; None if a graph has none."""
    return _geometric_mean(a.gain(features, formulation) for a in ablations)


def _geometric_mean(values: Iterable[float | None]) -> float | None:
    logarithms = [None if value is None else math.log(value) for value in values]
    known = [value for value in logarithms if value is not None]
    return math.exp(sum(known) / len(known)) if known and len(known) == len(logarithms) else None
