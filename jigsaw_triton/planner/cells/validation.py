"""Validation of a partition: every cell by the checks of a plan, and what the cells promise together."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from jigsaw_triton.planner.cells.gateway import gateway_use
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.cells.subproblem import subproblem
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.survivors import lost_capacity
from jigsaw_triton.planner.validation.validate import violations

_TOLERANCE = 1e-9
"""Error of a sum of shares. The validator's own constant."""


def partition_violations(partition: Partition, problem: Problem, options: Options) -> tuple[str, ...]:
    """Describes every way in which a partition breaks the problem's requirements or contradicts itself."""
    problem = replace(problem, costs=problem.board_costs)
    if found := [*_node_violations(partition, problem), *_weight_violations(partition, problem)]:
        return tuple(found)
    graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
    for cell in partition.cells:
        own = subproblem(problem, cell.nodes, cell.weights)
        wrong = violations(cell.plan, own, options) or lost_capacity(cell.plan, own.prepared(options), options)
        found += [f"{cell.name}: {reason}" for reason in wrong]
        if cell.gateway != gateway_use(graphs, cell.plan, problem.cluster.processes):
            found.append(f"{cell.name}: the plan asks the gateway for something else than {cell.gateway}")
        if (load := cell.gateway.load(problem.cluster.gateway_limits)) > 1:
            found.append(f"{cell.name}: the gateway would be loaded to {load:.0%}")
    return tuple(found)


def _node_violations(partition: Partition, problem: Problem) -> Iterator[str]:
    known = {gpu.id.node for gpu in problem.cluster.gpus}
    counts = Counter(node for cell in partition.cells for node in cell.nodes)
    for node, count in counts.items():
        if node not in known:
            yield f"node {node} is not in the cluster"
        if count > 1:
            yield f"node {node} is in {count} cells"
    yield from (f"node {node} is in no cell" for node in sorted(known - counts.keys()))


def _weight_violations(partition: Partition, problem: Problem) -> Iterator[str]:
    weights: dict[str, list[float]] = {workload.graph.name: [] for workload in problem.workloads}
    for cell in partition.cells:
        if not cell.weights:
            yield f"{cell.name} serves nothing"
        for name, weight in cell.weights.items():
            if name not in weights:
                yield f"{cell.name}: there is no graph {name}"
            elif weight <= 0:
                yield f"{cell.name}: the weight of {name} is {weight}"
            else:
                weights[name].append(weight)
    for name, shares in weights.items():
        if abs(math.fsum(shares) - 1) > _TOLERANCE:
            yield f"the weights of {name} add up to {math.fsum(shares)}"
