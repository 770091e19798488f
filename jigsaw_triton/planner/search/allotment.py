"""The optimum: the replicas and shared slices of the best plan, not yet placed on GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from jigsaw_triton.planner.candidates.chains import links
from jigsaw_triton.planner.candidates.configurations import Configuration, merged
from jigsaw_triton.planner.candidates.fused_chains import apart
from jigsaw_triton.planner.candidates.pools import SharedSlice, fitting
from jigsaw_triton.planner.search.attempt import Attempt, OutOfTimeError
from jigsaw_triton.planner.search.best_accuracy import best_accuracy
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    complete,
    least_together,
    replicas_among,
    with_room,
)
from jigsaw_triton.planner.search.fewest_slices import fewest_slices
from jigsaw_triton.planner.search.incumbent import Solution
from jigsaw_triton.planner.search.price import cheapest_change
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.solver import Outcome

_LOSS_DIGITS = 6
"""Decimal places to which losses of accuracy are compared."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """Replicas of a plan before placement. Those of the exact formulation can always be placed.

    Attributes:
        alone: Replicas that have a slice to themselves, by configuration.
        shared: Slices shared by several models.
        gpus: GPUs in use; in the paper's formulation a lower bound, by ideal packing.
        gpu_cost: Cost of these GPUs, in whole units.
        outcome: Outcome of the solver.
    """

    alone: Mapping[Configuration, int]
    shared: tuple[SharedSlice, ...]
    gpus: int
    gpu_cost: int
    outcome: Outcome

    @property
    def counts(self) -> dict[Configuration, int]:
        """All replicas, by configuration."""
        return {**self.alone, **{c: 1 for part in self.shared for c in part.configurations}}

    @property
    def slices(self) -> int:
        """Compute slices in use."""
        return sum(n * c.compute_slices for c, n in self.alone.items()) + sum(
            part.compute_slices for part in self.shared
        )

    @property
    def cost(self) -> int:
        """Cost of the slices in use, in whole units."""
        return sum(n * c.cost for c, n in self.alone.items()) + sum(part.cost for part in self.shared)

    @property
    def loss(self) -> float:
        """Loss of accuracy, summed over tasks, if each replica serves in proportion to its throughput."""
        total = 0.0
        for key in {(c.graph, c.task) for c in self.counts}:
            rps = {c: n * c.throughput_rps for c, n in self.counts.items() if (c.graph, c.task) == key}
            total += sum(c.loss * served for c, served in rps.items()) / sum(rps.values())
        return total

    def with_bound(self, cost: float) -> "Allotment":
        """Returns the allotment with this lower bound on its cost, if it is below what the solver proved."""
        first, *rest = self.outcome.stages
        if first.proven and cost >= first.value:
            return self
        bound = replace(first, bound=min(first.bound, cost), proven=False)
        return replace(self, outcome=replace(self.outcome, status="feasible", stages=(bound, *rest)))


def best_allotment(attempt: Attempt, time: Deadline) -> Allotment | None:
    """Returns the allotment that the objective asks for; None if there is no plan.

    Tries whole chains in shared slices first, for at most half of the time, and then each task on its own.

    Raises:
        OutOfTimeError: The deadline passed first.
    """
    fused = attempt.fused()
    if fused is None:
        return _allotment(attempt, time)
    try:
        first = _allotment(fused, Deadline(time.left_s / 2))
    except OutOfTimeError:
        first = None
    if first is None:
        return _allotment(attempt, time)
    try:
        second = _allotment(attempt, time)
    except OutOfTimeError:
        bounds = bounds_of(attempt.problem.workloads, attempt.candidates())
        return first.with_bound(least_together(b.least for b in bounds.values()))
    return first if second is None else better(first, second)


def better(one: Allotment, other: Allotment) -> Allotment:
    """Returns the allotment of less cost, then cheaper GPUs, then less loss of accuracy; the first of equals.

    The result is proven optimal if both are.
    """

    def cost(allotment: Allotment) -> tuple[int, int, float]:
        return allotment.cost, allotment.gpu_cost, round(allotment.loss, _LOSS_DIGITS)

    chosen, left = (other, one) if cost(other) < cost(one) else (one, other)
    if left.outcome.status == "optimal":
        return chosen
    return chosen.with_bound(left.outcome.stages[0].bound)


def _allotment(attempt: Attempt, time: Deadline) -> Allotment | None:
    found = _solved(attempt, with_room(attempt.problem, attempt.candidates(), attempt.options), time)
    if found is None or found[1].status == "infeasible":
        return None
    model, outcome = found
    if outcome.status == "unknown":
        raise OutOfTimeError(attempt.options.time_limit_s)
    counts = merged(model.counts(outcome.values))
    unfused = attempt.unfused or attempt.problem
    shared = fitting(
        counts, model.shared(outcome.values), links(unfused.workloads), partial(apart, problem=unfused)
    ).slices
    alone = {c: n for c, n in counts.items() if not c.shares}
    return Allotment(alone, shared, model.gpus(outcome.values), model.gpu_cost(outcome.values), outcome)


def _solved(attempt: Attempt, candidates: Candidates, time: Deadline) -> Solution | None:
    """Returns the solved program; None if bounds alone show that there is no plan."""
    if not complete(candidates):
        return None
    problem, options = attempt.problem, attempt.options
    staying = replicas_among(problem, candidates) if options.change_price else {}
    accurate = options.objective == "accuracy"
    found = fewest_slices(problem, candidates, options, attempt.solver, time, ties=not staying and not accurate)
    if found is None or not found[1].stages:
        return found
    if accurate:
        return best_accuracy(problem, candidates, options, attempt.solver, time, found)
    if not staying:
        return found
    return cheapest_change(problem, candidates, staying, options, attempt.solver, time, found)
