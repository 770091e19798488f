"""Fuses chains of tasks into one task each, for plans that put whole chains into shared slices.

A worker executes such a chain in one call (`graph.chain`), one batch at a time, so its tasks do not wait for each
other. A batch of n tasks that take P together takes P plus n times the turns of the other models in the slice. One by
one, its tasks would take n times all turns, including their own. A chain in its own slice takes as long as its tasks in
one each.

The fused task has one variant for each combination of its tasks' variants. Its profile follows from theirs: its latency
is the sum of theirs, percentile by percentile as along any path; its throughput is that of a slice that runs each call
as a separate execution of each task, which is how shared slices are planned; and its memory is the sum of theirs.
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
"""Largest number of combinations of variants with which a chain is fused. A convention that limits planning time."""

Apart = frozenset[tuple[str, str]]
"""(graph, chain) pairs that are not fused; a chain is written `first~second`."""


def with_fused_chains(problem: Problem, left_out: Apart = frozenset()) -> Problem | None:
    """Returns the problem with each chain, except those left out, fused into one task; None if none can be fused."""
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
    workloads = tuple(Workload(_fused_graph(w.graph, chains[w.graph.name]), w.demand_rps) for w in problem.workloads)
    running = None if problem.running is None else _with_chains_fused(problem.running, chains)
    return replace(problem, workloads=workloads, profiles=profiles, running=running)


def in_shared_slices(candidates: Mapping[str, TaskConfigurations]) -> dict[str, TaskConfigurations]:
    """Drops configurations of fused chains in a slice to themselves: only in a shared slice has a task one replica."""
    return {
        graph: {
            task: found if len(members(task)) == 1 else tuple(c for c in found if c.shares)
            for task, found in tasks.items()
        }
        for graph, tasks in candidates.items()
    }


def without(candidates: Mapping[str, TaskConfigurations]) -> Apart:
    """Returns the fused chains that have no configuration."""
    return frozenset(
        (graph, task)
        for graph, tasks in candidates.items()
        for task, found in tasks.items()
        if not found and len(members(task)) > 1
    )


def apart(c: Configuration, problem: Problem) -> tuple[Configuration, ...]:
    """Splits a fused chain's configuration into those of its tasks; returns any other configuration unchanged.

    Args:
        c: Configuration from the problem with fused chains.
        problem: Problem without fused chains.
    """
    tasks, variants = members(c.task), members(c.variant)
    if len(tasks) == 1:
        return (c,)
    (graph,) = (w.graph for w in problem.workloads if w.graph.name == c.graph)
    table = problem.profiles[c.graph]
    keys = [ProfileKey(c.board, *pair, c.slice, c.instances, c.batch) for pair in zip(tasks, variants, strict=True)]
    rows = [row for key in keys if (row := table.get(key)) is not None]
    whole = sum(busy(1.0, row) for row in rows)
    made = []
    for row in rows:
        load = c.turn.load * busy(1.0, row) / whole
        turn = replace(c.turn, ms=row.latency_p95_ms, load=load, steps=1)
        task, variant = graph.tasks[row.key.task], row.key.variant
        made.append(replace(c, task=task.name, variant=variant, loss=loss(task, variant), turn=turn))
    return tuple(made)


def _chains(graph: TaskGraph) -> tuple[tuple[str, ...], ...]:
    """Returns the chains of a graph with few enough combinations of variants to fuse."""
    return tuple(
        tasks
        for tasks in runs(followers(graph))
        if math.prod(len(graph.tasks[task].variants) for task in tasks) <= MOST_COMBINATIONS
    )


def _combinations(graph: TaskGraph, tasks: Sequence[str]) -> Iterator[Chain]:
    for variants in product(*(graph.tasks[task].variants for task in tasks)):
        yield Chain(tuple(tasks), tuple(variant.name for variant in variants))


def _fused_graph(graph: TaskGraph, chains: Sequence[Sequence[str]]) -> TaskGraph:
    whole = with_chains(graph, [next(_combinations(graph, tasks)) for tasks in chains])
    made = dict(whole.tasks)
    for tasks in chains:
        variants = tuple(as_variant(graph, chain) for chain in _combinations(graph, tasks))
        made[joined(tasks)] = replace(made[joined(tasks)], variants=variants)
    return replace(whole, tasks=made)


def _rows(graph: TaskGraph, table: ProfileTable, chains: Sequence[Sequence[str]]) -> Iterator[ProfileRow]:
    """Returns the profiles with those of fused chains, for one instance and batch sizes that all variants have."""
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
                    yield _fused_row(replace(first.key, task=chain.name, variant=chain.variant), rows)


def _fused_row(key: ProfileKey, rows: Sequence[ProfileRow]) -> ProfileRow:
    return ProfileRow(
        key,
        latency_p50_ms=sum(row.latency_p50_ms for row in rows),
        latency_p95_ms=sum(row.latency_p95_ms for row in rows),
        latency_p99_ms=sum(row.latency_p99_ms for row in rows),
        throughput_rps=1 / sum(busy(1.0, row) for row in rows),
        memory_mib=sum(row.memory_mib for row in rows),
        source="assumed",
    )


def _with_chains_fused(plan: Plan, chains: Mapping[str, Sequence[Sequence[str]]]) -> Plan:
    """Returns the running plan with each chain in a slice as one model."""
    gpus = (
        replace(gpu, layout=tuple(replace(s, models=_fused_models(s.models, chains)) for s in gpu.layout))
        for gpu in plan.gpus
    )
    return replace(plan, gpus=tuple(gpus))


def _fused_models(
    models: Sequence[PlacedModel], chains: Mapping[str, Sequence[Sequence[str]]]
) -> tuple[PlacedModel, ...]:
    left = list(models)
    for graph, its_chains in chains.items():
        by_task = {model.task: model for model in models if model.graph == graph}
        for tasks in its_chains:
            inside = [by_task[task] for task in tasks if task in by_task]
            if len(inside) == len(tasks) and len({(model.instances, model.batch) for model in inside}) == 1:
                left = [model for model in left if model not in inside]
                variant = joined(model.variant for model in inside)
                left.append(replace(inside[0], task=joined(tasks), variant=variant))
    return tuple(left)
