"""The planning problem of one cell."""

from collections.abc import Collection
from dataclasses import replace

from jigsaw_triton.planner.cells.weights import Weights
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem


def subproblem(problem: Problem, nodes: Collection[str], weights: Weights, running: Plan | None = None) -> Problem:
    """Returns the problem of serving a share of the demand on some nodes.

    Args:
        problem: Problem of the whole cluster.
        nodes: Names of the nodes.
        weights: Name of a graph -> share of its demand; other graphs are left out.
        running: Plan that runs on these nodes.
    """
    inside, cluster = set(nodes), problem.cluster
    gpus = tuple(gpu for gpu in cluster.gpus if gpu.id.node in inside)
    return replace(
        problem,
        workloads=tuple(
            replace(workload, demand_rps=workload.demand_rps * weights[workload.graph.name])
            for workload in problem.workloads
            if workload.graph.name in weights
        ),
        cluster=replace(cluster, gpus=gpus),
        running=running,
    )
