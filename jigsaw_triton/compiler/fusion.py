"""Compiles chains of tasks that share a slice to native ensembles on the worker, so that a chain takes one call.

The plan determines the chains (`planner.candidates.chained`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble, names
from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.compiler.front import one_by_one
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import digest
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.chain import Chain, as_task, with_chains
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.planner.domain.plan import GraphPlan, TaskPlan
from jigsaw_triton.runtime.spec import TOKEN_OUTPUT


def chain_plan(plan: GraphPlan, found: Sequence[Chain]) -> GraphPlan:
    """Returns the plan of a graph in which each chain is one task."""
    tasks = dict(plan.tasks)
    for chain in found:
        parts = [tasks.pop(task) for task in chain.tasks]
        segments = tuple(replace(segment, variant=chain.variant) for segment in parts[0].segments)
        tasks[chain.name] = TaskPlan(sum(part.budget_ms for part in parts), parts[0].rate_rps, segments)
    return replace(plan, tasks=tasks)


def in_chains(values_ms: Mapping[str, float], found: Sequence[Chain]) -> dict[str, float]:
    """Returns the time of each task, where each chain is one task and takes the sum of its members' times."""
    taken = dict(values_ms)
    for chain in found:
        taken[chain.name] = sum(taken.pop(task) for task in chain.tasks)
    return taken


def comes_one_by_one(graph: TaskGraph, chain: Chain) -> bool:
    """Returns True if each item of a chain is a separate request to a worker."""
    whole = with_chains(graph, [chain])
    return one_by_one(whole, whole.tasks[chain.name])


def chain_model(
    graph: TaskGraph, chain: Chain, members: Sequence[WorkerModel], template: Template, *, generation: int
) -> WorkerModel:
    """Compiles a chain to an ensemble that a worker loads.

    The ensemble has no process and does not take turns in a shared slice. Its members do.

    Args:
        graph: Graph of the chain.
        chain: Chain to execute in one call.
        members: Models of the worker that execute the chain's tasks, in order.
        template: Template named `ensemble`.
        generation: Number in the model's name.

    Raises:
        InputError: Triton would not serve the ensemble.
    """
    whole = as_task(graph, chain)
    batch = min(member.batch for member in members)
    folder = ensemble.model(
        names.worker_model(graph.name, chain.name, chain.variant, generation),
        {name: _called_with(graph, chain, ref) for name, ref in whole.inputs.items()},
        {**whole.outputs, **{name: TensorType("INT64", (1,)) for name in _tokens(members).values()}},
        tuple(_steps(graph, chain, members, whole)),
        template,
        max_batch=batch,
    )
    config = cfg.of_folder(folder)
    wrong = ensemble.check_ensemble(config, {member.name: cfg.of_folder(member.folder) for member in members})
    if wrong:
        raise InputError(
            f"Triton would not serve {chain.name} as one model: {'; '.join(wrong)}",
            where=graph.name,
            hint="rename these inputs, outputs or tasks, or correct their types",
        )
    return WorkerModel(
        folder=folder,
        graph=graph.name,
        task=chain.name,
        variant=chain.variant,
        instances=min(member.instances for member in members),
        batch=batch,
        digest=digest(config, {}, str),
        members=tuple(member.name for member in members),
        tokens=len(_tokens(members)),
        content=_content(config, members),
    )


def _content(config: ModelConfig, members: Sequence[WorkerModel]) -> str:
    """Returns the digest of a chain's steps with the contents of its members in place of their names."""
    if not all(member.content for member in members):
        return ""
    unnamed = ModelConfig()
    unnamed.CopyFrom(config)
    unnamed.max_batch_size = 0
    for step, member in zip(unnamed.ensemble_scheduling.step, members, strict=True):
        step.model_name = member.content
    return digest(unnamed, {}, str)


def _tokens(members: Sequence[WorkerModel]) -> dict[str, str]:
    """Returns, for each member that makes a token, the output of the chain that carries it."""
    makers = [member.name for member in members if member.tokens]
    if len(makers) == 1:
        return {makers[0]: TOKEN_OUTPUT}
    return {name: f"{TOKEN_OUTPUT}.{number}" for number, name in enumerate(makers)}


def _called_with(graph: TaskGraph, chain: Chain, ref: TensorRef) -> TensorType:
    """Returns the type that a tensor has as an input of one call of the chain."""
    return next(
        graph.input_type(graph.tasks[task], name)
        for task in chain.tasks
        for name, other in graph.tasks[task].inputs.items()
        if other == ref
    )


def _steps(graph: TaskGraph, chain: Chain, members: Sequence[WorkerModel], whole: Task) -> Iterator[ensemble.Step]:
    """Yields the steps of the ensemble, whose tensors have the same names as in the graph."""
    needed = {ref for task in chain.tasks for ref in graph.tasks[task].inputs.values()}
    tokens = _tokens(members)
    for name, member in zip(chain.tasks, members, strict=True):
        task = graph.tasks[name]
        made = {output: TensorRef(name, output) for output in task.outputs}
        yield ensemble.Step(
            model=member.name,
            inputs={tensor: str(ref) for tensor, ref in task.inputs.items()},
            outputs={
                **{output: str(ref) for output, ref in made.items() if ref in needed or str(ref) in whole.outputs},
                **({TOKEN_OUTPUT: tokens[member.name]} if member.name in tokens else {}),
            },
        )
