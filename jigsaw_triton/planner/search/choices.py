"""What a search chooses from: configurations that can be part of an optimum, and slices for them."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.bounds.bounds import Bounds, least_slices
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    Replica,
    TaskConfigurations,
    worthwhile,
)
from jigsaw_triton.planner.candidates.sharing import with_shared
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.rates import least_calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.supply import Supply, supply
from jigsaw_triton.planner.placement.placement import running_slices

_ROUNDING = 1e-3
"""Of a slice, that sums of parts of slices may be off by."""

Candidates = Mapping[str, TaskConfigurations]
"""Graph name -> task -> configurations."""


def worth_trying(problem: Problem, everything: Candidates, options: Options) -> Candidates:
    """Those that some optimal plan needs, on slices of their own and, where that is asked for, on shared ones."""
    staying = replicas(problem) if options.change_price else ()
    alone = {w.graph.name: worthwhile(w.graph, everything[w.graph.name], staying) for w in problem.workloads}
    if not options.share:
        return alone
    return with_shared(problem.workloads, alone, problem.profiles, problem.boards, options)


def with_room(problem: Problem, candidates: Candidates, options: Options) -> dict[str, TaskConfigurations]:
    """Those on slices that a GPU of the cluster has room for, beside what others have there."""
    by_board = {s.board.name: s for s in supplies(problem, candidates, options)}
    return {
        name: {task: tuple(c for c in of if by_board[c.board].most(c.slice) > 0) for task, of in tasks.items()}
        for name, tasks in candidates.items()
    }


def numerous(workloads: Sequence[Workload], candidates: Candidates) -> dict[str, TaskConfigurations]:
    """Those that are for at least as many replicas as a task has in any plan for these demands."""
    return {w.graph.name: _numerous(w, candidates[w.graph.name]) for w in workloads}


def _numerous(workload: Workload, tasks: TaskConfigurations) -> TaskConfigurations:
    calls = least_calls(workload.graph, {task: {c.variant for c in of} for task, of in tasks.items()})
    rate_rps = {task: workload.demand_rps * n * (1 - TOLERANCE) for task, n in calls.items()}
    carried = {task: max((c.throughput_rps for c in of), default=0.0) for task, of in tasks.items()}
    return {
        task: tuple(c for c in of if c.shares or c.replica_range[1] * carried[task] >= rate_rps[task])
        for task, of in tasks.items()
    }


def complete(candidates: Candidates) -> bool:
    """Whether each task has a configuration at least."""
    return all(all(of.values()) for of in candidates.values())


def supplies(problem: Problem, candidates: Candidates, options: Options) -> list[Supply]:
    """By model of GPU, what the cluster can give of the slices that the configurations are on."""
    kinds: dict[str, set[str]] = {}
    for tasks in candidates.values():
        for of in tasks.values():
            for c in of:
                kinds.setdefault(c.board, set()).add(c.slice)
    return [
        supply(problem.cluster, b, kinds[b.name], ideal=options.ideal_packing)
        for b in problem.boards
        if b.name in kinds
    ]


def bounds_of(workloads: Sequence[Workload], candidates: Candidates) -> dict[str, Bounds]:
    """By graph."""
    return {w.graph.name: least_slices(w, candidates[w.graph.name]) for w in workloads}


def least_together(leasts: Iterable[float]) -> float:
    """Whole slices for what graphs take of them at least; infinite where one of them has no plan."""
    total = sum(leasts)
    return total if math.isinf(total) else math.ceil(total - _ROUNDING * max(1.0, 1e-3 * total))


def within_cluster(
    problem: Problem, bounds: Mapping[str, Bounds], candidates: Candidates
) -> dict[str, dict[str, tuple[Configuration, ...]]]:
    """The configurations that plans may use for which the cluster has the slices."""
    over = problem.cluster.compute_slices - sum(b.least for b in bounds.values())
    return {name: bounds[name].within(over + bounds[name].least, tasks) for name, tasks in candidates.items()}


def with_these(
    candidates: Mapping[str, Mapping[str, tuple[Configuration, ...]]], these: Collection[Configuration]
) -> dict[str, TaskConfigurations]:
    """These configurations, too."""
    return {
        graph: {
            task: tuple(sorted({*of, *(c for c in these if (c.graph, c.task) == (graph, task))}))
            for task, of in tasks.items()
        }
        for graph, tasks in candidates.items()
    }


def replicas(problem: Problem) -> Counter[Replica]:
    """All that run now."""
    boards = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    return Counter(
        (m.graph, m.task, m.variant, boards[gpu], place.slice, m.instances, m.batch)
        for gpu, slices in running_slices(problem.cluster, problem.running).items()
        for place, models in slices.items()
        for m in models
    )


def replicas_among(problem: Problem, candidates: Candidates) -> Counter[Replica]:
    """Those that run now of the configurations that may be chosen."""
    known = {c.replica for tasks in candidates.values() for of in tasks.values() for c in of}
    return Counter({replica: n for replica, n in replicas(problem).items() if replica in known})
