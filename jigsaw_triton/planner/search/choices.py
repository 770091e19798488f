"""Candidates of a search: configurations that an optimal plan may use, and the supply of slices for them."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.bounds.bounds import Bounds, least_slices
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.candidates.sharing import with_shared
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.rates import least_calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.supply import Supply, supply
from jigsaw_triton.planner.placement.placement import running_slices

_ROUNDING = 1e-3
"""Rounding error, in slices, of a sum of fractional slices."""

Candidates = Mapping[str, TaskConfigurations]
"""Graph name -> task -> configurations."""


def every(candidates: Candidates) -> Iterator[Configuration]:
    """Yields all configurations."""
    return (c for tasks in candidates.values() for configs in tasks.values() for c in configs)


def filtered(candidates: Candidates, keep: Callable[[Configuration], bool]) -> dict[str, TaskConfigurations]:
    """Returns the configurations to keep."""
    return {
        graph: {task: tuple(filter(keep, configs)) for task, configs in tasks.items()}
        for graph, tasks in candidates.items()
    }


def worth_trying(problem: Problem, everything: Candidates, options: Options) -> Candidates:
    """Returns configurations that suffice for an optimal plan, with `share` on shared slices as well."""
    stay = staying(problem, options)
    alone = {w.graph.name: worthwhile(w.graph, everything[w.graph.name], stay) for w in problem.workloads}
    if not options.share:
        return alone
    return with_shared(problem.workloads, alone, problem.profiles, problem.boards, options)


def with_room(problem: Problem, candidates: Candidates, options: Options) -> dict[str, TaskConfigurations]:
    """Returns the configurations whose slice fits a GPU of the cluster, beside MIG instances of others."""
    by_board = {s.board.name: s for s in supplies(problem, candidates, options)}
    kinds = ((board, kind) for board, slices in slices_by_board(candidates).items() for kind in slices)
    fitting = {(board, kind) for board, kind in kinds if by_board[board].most(kind) > 0}
    return filtered(candidates, lambda c: (c.board, c.slice) in fitting)


def numerous(workloads: Sequence[Workload], candidates: Candidates) -> dict[str, TaskConfigurations]:
    """Returns the configurations whose range of replica numbers reaches what the task's demand needs at least."""
    return {w.graph.name: _numerous(w, candidates[w.graph.name]) for w in workloads}


def _numerous(workload: Workload, tasks: TaskConfigurations) -> TaskConfigurations:
    calls = least_calls(workload.graph, {task: {c.variant for c in configs} for task, configs in tasks.items()})
    rate_rps = {task: workload.demand_rps * n * (1 - TOLERANCE) for task, n in calls.items()}
    fastest_rps = {task: max((c.throughput_rps for c in configs), default=0.0) for task, configs in tasks.items()}
    return {
        task: tuple(c for c in configs if c.shares or c.replica_range[1] * fastest_rps[task] >= rate_rps[task])
        for task, configs in tasks.items()
    }


def complete(candidates: Candidates) -> bool:
    """Returns True if each task has a configuration."""
    return all(all(configs.values()) for configs in candidates.values())


def slices_by_board(candidates: Candidates) -> dict[str, set[str]]:
    """Returns the slices that configurations are on, by model of GPU."""
    slices: dict[str, set[str]] = {}
    for c in every(candidates):
        slices.setdefault(c.board, set()).add(c.slice)
    return slices


def supplies(problem: Problem, candidates: Candidates, options: Options) -> list[Supply]:
    """Returns the cluster's supply of the slices that configurations are on, by model of GPU."""
    slices = slices_by_board(candidates)
    return [
        supply(problem.cluster, b, slices[b.name], ideal=options.ideal_packing)
        for b in problem.boards
        if b.name in slices
    ]


def bounds_of(workloads: Sequence[Workload], candidates: Candidates) -> dict[str, Bounds]:
    """Returns the lower bounds on slices, by graph."""
    return {w.graph.name: least_slices(w, candidates[w.graph.name]) for w in workloads}


def least_together(leasts: Iterable[float]) -> float:
    """Returns the sum of the graphs' lower bounds in whole slices; infinite if one of them is."""
    total = sum(leasts)
    return total if math.isinf(total) else math.ceil(total - _ROUNDING * max(1.0, 1e-3 * total))


def within_slices(
    limit: float, bounds: Mapping[str, Bounds], candidates: Candidates, leasts: Mapping[str, float] | None = None
) -> dict[str, dict[str, tuple[Configuration, ...]]]:
    """Returns the configurations that plans of up to this many slices, by cost, may use.

    Args:
        limit: Cost of all graphs together, in whole units.
        bounds: Bounds of the candidates, by graph.
        candidates: Configurations to choose from.
        leasts: Lower bounds on the slices of each graph, if better ones than those of `bounds` are known.
    """
    leasts = leasts or {name: b.least for name, b in bounds.items()}
    over = limit - sum(leasts.values())
    return {name: bounds[name].within(over + leasts[name], tasks) for name, tasks in candidates.items()}


def with_these(candidates: Candidates, these: Collection[Configuration]) -> dict[str, TaskConfigurations]:
    """Returns the candidates with these configurations added."""
    return {
        graph: {
            task: tuple(sorted({*configs, *(c for c in these if (c.graph, c.task) == (graph, task))}))
            for task, configs in tasks.items()
        }
        for graph, tasks in candidates.items()
    }


def replicas(problem: Problem) -> Counter[Replica]:
    """Returns the number of running replicas of each kind."""
    boards = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    return Counter(
        (m.graph, m.task, m.variant, boards[gpu], place.slice, m.instances, m.batch)
        for gpu, slices in running_slices(problem.cluster, problem.running).items()
        for place, models in slices.items()
        for m in models
    )


def staying(problem: Problem, options: Options) -> Collection[Replica]:
    """Returns the running replicas that an optimal plan may need even if they are dominated: it pays to keep them."""
    return replicas(problem) if options.change_price else ()


def replicas_among(problem: Problem, candidates: Candidates) -> Counter[Replica]:
    """Returns the number of running replicas of each kind that is among the candidates."""
    known = {c.replica for c in every(candidates)}
    return Counter({replica: n for replica, n in replicas(problem).items() if replica in known})
