"""Chains of tasks as one task each, for plans that put whole chains into shared slices.

A worker does such a chain in one call (`graph.chain`). One batch of it is under way at a time, so its tasks do not wait
for each other: a batch of n tasks that take P alone takes P and n times the turns of the others in the slice, where its
tasks one by one would take n times all turns, its own among them. A chain in a slice of its own takes as long as its
tasks in one each.

Here a chain is a task whose variants are those of its tasks in every combination. Its profiles follow from theirs: in
turn they take the sum of their times, percentile by percentile as along any path; do as many calls as the slice has
time for, each an execution of its own for each task, as shared slices are planned; and need the memory of all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from jigsaw_triton.graph.chain import Chain, as_variant, followers, runs, with_chains
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, loss
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.service import busy
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import joined, members

MOST_COMBINATIONS = 256
"""A chain with more combinations of variants stays apart."""


Apart = frozenset[tuple[str, str]]
"""Graphs and chains, as `first~second`."""


def with_fused_chains(problem: Problem, left_out: Apart = frozenset()) -> Problem | None:
    """The problem with every chain as one task, but for those that are left out; None where there is no other."""
    chains = {
        w.graph.name: tuple(tasks for tasks in _chains(w.graph) if (w.graph.name, joined(tasks)) not in left_out)
        for w in problem.workloads
    }
    if not any(chains.values()):
        return None
    profiles = {
        w.graph.name: ProfileTable(_rows(w.graph, problem.profiles[w.graph.name], chains[w.graph.name]))
        for w in problem.workloads
    }
    workloads = tuple(Workload(_whole(w.graph, chains[w.graph.name]), w.demand_rps) for w in problem.workloads)
    running = None if problem.running is None else _running(problem.running, chains)
    return replace(problem, workloads=workloads, profiles=profiles, running=running)


def in_shared_slices(candidates: Mapping[str, TaskConfigurations]) -> dict[str, TaskConfigurations]:
    """Graph name -> task -> its configurations, of chains those that share a slice: there a task has one replica."""
    return {
        graph: {task: of if len(members(task)) == 1 else tuple(c for c in of if c.shares) for task, of in tasks.items()}
        for graph, tasks in candidates.items()
    }


def without(candidates: Mapping[str, TaskConfigurations]) -> Apart:
    """The chains that have no configuration."""
    return frozenset(
        (graph, task)
        for graph, tasks in candidates.items()
        for task, of in tasks.items()
        if not of and len(members(task)) > 1
    )


def apart(c: Configuration, problem: Problem) -> tuple[Configuration, ...]:
    """The configurations of a chain's tasks that share a slice, by that of the chain; another as it is.

    Args:
        c: A configuration of `with_fused_chains` of the problem.
        problem: With each task on its own.
    """
    tasks, variants = members(c.task), members(c.variant)
    if len(tasks) == 1:
        return (c,)
    (graph,) = (w.graph for w in problem.workloads if w.graph.name == c.graph)
    table = problem.profiles[c.graph]
    keys = [ProfileKey(c.board, *of, c.slice, c.instances, c.batch) for of in zip(tasks, variants, strict=True)]
    rows = [row for key in keys if (row := table.get(key)) is not None]
    whole = sum(busy(1.0, row) for row in rows)
    made = []
    for row in rows:
        load = c.turn.load * busy(1.0, row) / whole
        turn = replace(c.turn, ms=row.latency_p95_ms, load=load, steps=1)
        of, variant = graph.tasks[row.key.task], row.key.variant
        made.append(replace(c, task=of.name, variant=variant, loss=loss(of, variant), turn=turn))
    return tuple(made)


def _chains(graph: TaskGraph) -> tuple[tuple[str, ...], ...]:
    """Those with few enough combinations of variants."""
    return tuple(
        tasks
        for tasks in runs(followers(graph))
        if math.prod(len(graph.tasks[task].variants) for task in tasks) <= MOST_COMBINATIONS
    )


def _combinations(graph: TaskGraph, tasks: Sequence[str]) -> Iterator[Chain]:
    for variants in product(*(graph.tasks[task].variants for task in tasks)):
        yield Chain(tuple(tasks), tuple(variant.name for variant in variants))


def _whole(graph: TaskGraph, chains: Sequence[Sequence[str]]) -> TaskGraph:
    whole = with_chains(graph, [next(_combinations(graph, tasks)) for tasks in chains])
    made = dict(whole.tasks)
    for tasks in chains:
        variants = tuple(as_variant(graph, chain) for chain in _combinations(graph, tasks))
        made[joined(tasks)] = replace(made[joined(tasks)], variants=variants)
    return replace(whole, tasks=made)


def _rows(graph: TaskGraph, table: ProfileTable, chains: Sequence[Sequence[str]]) -> Iterator[ProfileRow]:
    """Profiles of one instance of each combination, for batches that all its variants are profiled with."""
    inside = {task for tasks in chains for task in tasks}
    yield from (row for row in table.rows() if row.key.task not in inside)
    for tasks in chains:
        for chain in _combinations(graph, tasks):
            for first in table.rows(task=chain.tasks[0], variant=chain.variants[0]):
                keys = (
                    replace(first.key, task=task, variant=variant)
                    for task, variant in zip(chain.tasks, chain.variants, strict=True)
                )
                rows = [row for key in keys if (row := table.get(key)) is not None and row.throughput_rps > 0]
                if first.key.instances == 1 and len(rows) == len(tasks):
                    yield _in_turn(replace(first.key, task=chain.name, variant=chain.variant), rows)


def _in_turn(key: ProfileKey, rows: Sequence[ProfileRow]) -> ProfileRow:
    return ProfileRow(
        key,
        latency_p50_ms=sum(row.latency_p50_ms for row in rows),
        latency_p95_ms=sum(row.latency_p95_ms for row in rows),
        latency_p99_ms=sum(row.latency_p99_ms for row in rows),
        throughput_rps=1 / sum(busy(1.0, row) for row in rows),
        memory_mib=sum(row.memory_mib for row in rows),
        source="assumed",
    )


def _running(plan: Plan, chains: Mapping[str, Sequence[Sequence[str]]]) -> Plan:
    """The plan that runs, in which a slice that holds a chain holds it as one model."""
    gpus = (
        replace(gpu, layout=tuple(replace(of, models=_placed(of.models, chains)) for of in gpu.layout))
        for gpu in plan.gpus
    )
    return replace(plan, gpus=tuple(gpus))


def _placed(models: Sequence[PlacedModel], chains: Mapping[str, Sequence[Sequence[str]]]) -> tuple[PlacedModel, ...]:
    left = list(models)
    for graph, of_graph in chains.items():
        of_task = {model.task: model for model in models if model.graph == graph}
        for tasks in of_graph:
            inside = [of_task[task] for task in tasks if task in of_task]
            if len(inside) == len(tasks) and len({(model.instances, model.batch) for model in inside}) == 1:
                left = [model for model in left if model not in inside]
                variant = joined(model.variant for model in inside)
                left.append(replace(inside[0], task=joined(tasks), variant=variant))
    return tuple(left)
