"""Runs the nodes of a graph over many requests: variants on live tritonservers, Python steps in this process."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jigsaw_triton.compiler.front import one_by_one
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation.profiling.models import Models
from jigsaw_triton.evaluation.profiling.tensors import Tensors, calls, gather
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers, without_log
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy
from jigsaw_triton.runtime.spec import ANSWERED_OUTPUT, StepSpec, TensorSpec
from jigsaw_triton.runtime.steps import STEP_FILE, Step, StepError

Answers = Sequence[Arrays]
"""Answers to the calls of a task for one request, each with a batch dimension of 1."""

_WAITING = 2
"""Requests that each instance of a model has at a time, so that it does not wait for the next one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A variant that does not run.

    Attributes:
        reason: Reason in one line.
        log: End of the workers' logs, in lines; empty if they say nothing.
    """

    reason: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """Configuration with which each model is served.

    Attributes:
        kind: Kind of the slice.
        instances: Triton instance count.
        batch: Largest batch.
    """

    kind: str
    instances: int
    batch: int


class Runner:
    """Runs variants of a graph on a slice.

    Args:
        graph: Graph with the variants.
        workers: Workers that serve the models.
        templates: Templates of model repositories by name.
        serving: Configuration of each model.
    """

    def __init__(
        self, graph: TaskGraph, workers: ProfilingWorkers, templates: Mapping[str, Template], serving: Serving
    ) -> None:
        self._graph, self._workers, self._serving = graph, workers, serving
        self._models = Models(graph, templates)

    async def answers(self, task: Task, variant: str, requests: Sequence[Tensors]) -> list[Answers] | Failure:
        """Returns the answers of a variant to the calls of each request.

        Args:
            task: Task that the variant performs.
            variant: Name of the variant.
            requests: Tensors of each request, at least those that the task consumes.

        Returns:
            The answers; a failure if the model cannot be compiled, does not load, or fails. The workers are stopped
            after a failure, which may have damaged them.

        Raises:
            ServerError: The workers do not start.
        """
        items = [(at, call) for at, tensors in enumerate(requests) for call in needed_calls(self._graph, task, tensors)]
        answers: dict[int, Arrays] = {}
        if items:
            await self._workers.start(self._serving.kind, self._serving.instances)
            try:
                answers = await self._served(task, variant, [call for _, call in items])
            except (InputError, ServerError) as error:
                await self._workers.stop()
                return Failure(*without_log(error))
        found: list[list[Arrays]] = [[] for _ in requests]
        for row, (at, _) in enumerate(items):
            found[at].append(answers[row])
        return list(found)

    async def _served(self, task: Task, variant: str, items: Sequence[Arrays]) -> dict[int, Arrays]:
        """Returns the answers of a variant by the position of the item."""
        size = 1 if one_by_one(self._graph, task) else self._serving.batch
        waiting = iter(_batches(items, size))
        kind, instances = self._serving.kind, self._serving.instances
        model = self._models.compiled(self._workers, task.name, variant, kind, instances, size)
        answers: dict[int, Arrays] = {}

        async def lane() -> None:
            for rows in waiting:
                inputs = {name: np.stack([items[row][name] for row in rows]) for name in task.inputs}
                outputs = await self._workers.infer(model.name, inputs)
                for place, row in enumerate(rows):
                    answers[row] = {name: outputs[name][place : place + 1] for name in task.outputs}

        async with self._workers.loaded(model):
            try:
                async with asyncio.TaskGroup() as lanes:
                    for _ in range(_WAITING * instances):
                        lanes.create_task(lane())
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
        return answers


def needed_calls(graph: TaskGraph, task: Task, tensors: Tensors) -> list[dict[str, Array]]:
    """Returns the inputs of each call of a task for one request; none if its condition does not hold."""
    if task.when is not None:
        value = float(tensors[task.when.tensor].reshape(-1)[0])
        holds = value > task.when.above if task.when.above is not None else value < (task.when.below or 0.0)
        if not holds:
            return []
    return calls(graph, task, tensors)


def gathered(graph: TaskGraph, task: Task, answers: Answers) -> dict[TensorRef, Array]:
    """Combines the answers to a task's calls, of which there may be none, into the tensors that its consumers see."""
    if answers:
        return gather(graph, task, answers)
    types = {ref: graph.type_of(ref) for ref in (TensorRef(task.name, name) for name in task.makes)}
    return {
        ref: np.empty((0, *(max(dim, 0) for dim in kind.shape[1:])), to_numpy(kind.dtype))
        for ref, kind in types.items()
    }


def stepped(graph: TaskGraph, step: PythonStep, requests: Sequence[Tensors]) -> list[Tensors]:
    """Runs the code of a Python step for each request, and returns its outputs.

    Raises:
        InputError: The code fails, or answers a request early, so that its graph has no outputs to compare.
    """
    inputs = tuple(TensorSpec(name, (t := graph.input_type(step, name)).dtype, t.shape) for name in step.inputs)
    outputs = tuple(TensorSpec(name, kind.dtype, kind.shape) for name, kind in step.outputs.items())
    answers = tuple(TensorSpec(name, (t := graph.type_of(ref)).dtype, t.shape) for name, ref in graph.outputs.items())
    found: list[Tensors] = []
    try:
        with tempfile.TemporaryDirectory(prefix="jigsaw-step-") as folder:
            Path(folder, STEP_FILE).write_text(step.source, encoding="utf-8")
            code = Step(Path(folder), StepSpec(step.name, step.file, inputs, outputs, answers))
        for tensors in requests:
            made = code({name: tensors[ref][None] for name, ref in step.inputs.items()})
            if made[ANSWERED_OUTPUT].any():
                hint = "leave such requests out of the labelled set"
                raise InputError(f"the Python step {step.name} answers a request early", where=step.file, hint=hint)
            found.append({TensorRef(step.name, name): made[name][0] for name in step.outputs})
    except StepError as error:
        raise InputError(str(error), where=step.file) from error
    return found


def _batches(items: Sequence[Arrays], size: int) -> Iterator[list[int]]:
    """Yields the positions of the items of each batch: items of equal shapes, at most `size`."""
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, item in enumerate(items):
        rows = alike.setdefault(tuple(array.shape for array in item.values()), [])
        rows.append(at)
        if len(rows) == size:
            yield list(rows)
            rows.clear()
    yield from (rows for rows in alike.values() if rows)
