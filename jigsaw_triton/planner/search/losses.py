"""Losses of failure domains: what is left after each one bounds the cost of a plan that survives, and hints at one."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from jigsaw_triton.planner.bounds.bounds import Bounds
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import Problem, ReplicaRange, with_demand_scaled
from jigsaw_triton.planner.domain.survival import domain_of, model_of
from jigsaw_triton.planner.search.choices import Candidates, bounds_of, complete, every, filtered

_LIKELY = 0.02
"""Largest relative distance of a configuration's lower bound from its graph's after a loss, for it to be likely."""


@dataclass(frozen=True, slots=True)
class AfterLosses:
    """Consequences of what is left after losses.

    Attributes:
        least: Lower bound on the cost of a plan that survives; 0 if none is known.
        likely: Few configurations for each loss that leaves other models of GPU, among which there is likely a plan
            that survives.
    """

    least: float
    likely: tuple[Candidates, ...]


def after_losses(problem: Problem, candidates: Candidates, likely: Candidates) -> AfterLosses:
    """Bounds the cost of what each loss must leave.

    What is left depends on the models of GPU that are left; domains alike leave the same. It costs at least its bound,
    and the losses of n domains leave each slice n - 1 times.

    Args:
        problem: Problem whose failure domains are apart.
        candidates: Configurations to choose from, at least one for each task.
        likely: Configurations with which few slices are likely to suffice without a loss.
    """
    sets, least_of = list[Candidates](), dict[frozenset[str], float]()
    names = {w.graph.name for w in problem.workloads}
    workloads = with_demand_scaled(problem, names, problem.survive).workloads
    boards, total = {c.board for c in every(candidates)}, 0.0
    found, everything = sorted(set(map(domain_of, boards))), {model_of(board) for board in boards}
    for domain in found:
        # Bounds ignore how many GPUs there are, so that one domain stands for all with GPUs of its model.
        one = {model_of(board): board for board in sorted(boards, reverse=True) if domain_of(board) != domain}
        models = frozenset(one)
        if models not in least_of:
            left = filtered(candidates, partial(_on, frozenset(one.values())))
            bounds = bounds_of(workloads, left) if complete(left) else {}
            least_of[models] = sum(b.least for b in bounds.values()) if bounds else math.inf
            if math.isfinite(least_of[models]) and models != everything:
                sets.append(_likely(candidates, left, bounds, models, likely))
        total += least_of[models]
    return AfterLosses(0.0 if math.isinf(total) else total / (len(found) - 1), tuple(sets))


def _likely(
    candidates: Candidates, left: Candidates, bounds: Mapping[str, Bounds], models: Collection[str], likely: Candidates
) -> Candidates:
    """Returns the configurations with which few slices suffice after a loss.

    On the models of GPU that are lost, they are the fastest within the same latencies and losses of accuracy.
    """
    few = {_anywhere(c) for name, b in bounds.items() for c in chain(*b.likely(_LIKELY, left[name]).values())}
    at = {(name, task): level for name, b in bounds.items() for task, level in b.witness.items()}
    lost = (c for c in every(candidates) if model_of(c.board) not in models)
    more = {*_fastest_within(at, lost), *every(likely)}
    return filtered(candidates, lambda c: c in more or _anywhere(c) in few)


def _fastest_within(
    at: Mapping[tuple[str, str], tuple[float, float]], found: Iterable[Configuration]
) -> Collection[Configuration]:
    """Returns the configuration of most throughput of each variant and slice, within a latency and a loss by task."""
    fastest: dict[tuple[str, str, str, str, str, ReplicaRange], Configuration] = {}
    for c in found:
        most_ms, most_loss = at[c.graph, c.task]
        if c.latency_ms <= most_ms and c.loss <= most_loss:
            key = (c.graph, c.task, c.variant, c.board, c.slice, c.replica_range)
            fastest[key] = max(c, fastest.get(key, c), key=lambda c: c.throughput_rps)
    return fastest.values()


def _on(boards: Collection[str], c: Configuration) -> bool:
    return c.board in boards


def _anywhere(c: Configuration) -> Configuration:
    """Returns the configuration on its model of GPU, in whatever failure domain."""
    return replace(c, board=model_of(c.board))
