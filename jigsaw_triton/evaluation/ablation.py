"""What each feature is worth: every subset of them, in both formulations, on one graph and cluster."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Formulation, Options, Problem
from jigsaw_triton.planner.placement.greedy import greedy
from jigsaw_triton.planner.search.solve import LargestDemand, SolverFactory, allot, largest_demand
from jigsaw_triton.planner.solver.solver import SolverProcess

SUBSETS = ("", "T", "A", "AT", "S", "ST", "AS", "AST")
"""Of the features, in the order of `PUBLISHED`."""

PUBLISHED: Mapping[str, float] = dict(zip(SUBSETS, (1.0, 1.1, 1.6, 1.9, 5.25, 7.8, 12.1, 21.6), strict=True))
"""Largest demand by subset relative to none: JigsawServe (arXiv 2603.08797), its own applications on 120 GPUs."""


@dataclass(frozen=True, slots=True)
class Slices:
    """What a demand takes.

    Attributes:
        used: Compute slices.
        unplaced: Of those, slices that the paper's greedy placement finds no place for; 0 in the exact formulation.
        proven: Whether no fewer would do, else the time limit came first.
    """

    used: int
    unplaced: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One subset in one formulation.

    Attributes:
        features: The subset.
        formulation: Which.
        largest_rps: Requests a second that the cluster carries at most, before placement; None where none at all.
        proven: Whether none larger can be, else the time limit came first.
        at_largest: What that takes; None where there is none.
        at_common: What the ablation's common demand takes; None where there is none.
        reason: Why no demand can be carried; empty where one can.
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
    """All subsets in both formulations.

    Attributes:
        graph: Name.
        common_rps: The largest demand that all cases carry which carry any.
        slices_total: Of the cluster.
        cases: By formulation, then in the order of `SUBSETS`.
    """

    graph: str
    common_rps: float
    slices_total: int
    cases: tuple[Case, ...]

    def case(self, features: str, formulation: Formulation) -> Case:
        """One of them."""
        return next(c for c in self.cases if (c.features, c.formulation) == (features, formulation))

    def gain(self, features: str, formulation: Formulation) -> float | None:
        """The largest demand relative to that without features, in the same formulation; None where either is none."""
        most, least = (self.case(f, formulation).largest_rps for f in (features, ""))
        return most / least if most is not None and least is not None else None

    def to_json(self) -> dict[str, Any]:
        """With each case's gain."""
        document = asdict(self)
        for case, of in zip(document["cases"], self.cases, strict=True):
            case["gain"] = self.gain(of.features, of.formulation)
        return document


def ablation(
    problem: Problem,
    options: Options,
    *,
    tell: Callable[[str], object] = lambda _: None,
    solvers: SolverFactory = SolverProcess,
) -> Ablation:
    """Plans a graph with every subset of features in both formulations.

    Both use the paper's latency model and all of the profiled throughput, so that what differs is the formulation.

    Args:
        problem: Of one graph; its demand does not matter.
        options: The time limit of each solve, and the solver; what is compared does not matter.
        tell: Is told what is being looked at.
        solvers: Makes the solver of a name.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: No case carries any demand.
        JigsawError: Nothing was found within the time limit, or no solver gave a sound answer.
    """
    (workload,) = problem.workloads
    name = workload.graph.name
    options = replace(options, latency_model="2p95", utilisation=1.0)
    ways = [replace(options, features=f, formulation=formulation) for formulation in FORMULATIONS for f in SUBSETS]
    carried: list[LargestDemand | InfeasibleError] = []
    tell(f"{name}: the largest demands")
    for way in ways:
        try:
            carried.append(largest_demand(problem, way, solvers=solvers))
        except InfeasibleError as error:
            carried.append(error)
    found = [most.rps[name] for most in carried if isinstance(most, LargestDemand)]
    if not found:
        raise next(error for error in carried if isinstance(error, InfeasibleError))
    common_rps = min(found)

    tell(f"{name}: the slices that they take, and that {common_rps:.4g} requests/s take")

    def case(way: Options, most: LargestDemand | InfeasibleError) -> Case:
        if isinstance(most, InfeasibleError):
            return Case(way.features, way.formulation, None, True, None, None, "; ".join(most.reasons))
        at_largest, at_common = (_slices(problem, way, rps, solvers) for rps in (most.rps[name], common_rps))
        return Case(way.features, way.formulation, most.rps[name], most.proven, at_largest, at_common)

    cases = tuple(case(way, most) for way, most in zip(ways, carried, strict=True))
    return Ablation(name, common_rps, problem.cluster.compute_slices, cases)


def _slices(problem: Problem, options: Options, rps: float, solvers: SolverFactory) -> Slices:
    (workload,) = problem.workloads
    found = allot(replace(problem, workloads=(Workload(workload.graph, rps),)), options, solvers=solvers)
    unplaced = greedy(problem.cluster, found.counts).unplaced_slices if options.formulation == "paper" else 0
    return Slices(found.slices, unplaced, found.outcome.stages[0].proven)


def mean_gain(ablations: Sequence[Ablation], features: str, formulation: Formulation) -> float | None:
    """The geometric mean of the graphs' gains; None where one of them has none."""
    return _geometric_mean(a.gain(features, formulation) for a in ablations)


def _geometric_mean(values: Iterable[float | None]) -> float | None:
    logarithms = [None if value is None else math.log(value) for value in values]
    known = [value for value in logarithms if value is not None]
    return math.exp(sum(known) / len(known)) if known and len(known) == len(logarithms) else None
