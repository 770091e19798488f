"""Measures the configurations of a graph's variants, each served as a deployment would serve it."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jigsaw_triton.compiler.front import one_by_one
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import EMULATED
from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation.load import request_tensors
from jigsaw_triton.evaluation.profiling.confidence import HalfWidths
from jigsaw_triton.evaluation.profiling.digest import model_digest
from jigsaw_triton.evaluation.profiling.figures import Figures, figures
from jigsaw_triton.evaluation.profiling.load import Load, Pace, Target, closed_loop
from jigsaw_triton.evaluation.profiling.models import Models
from jigsaw_triton.evaluation.profiling.tensors import batches, calls, gather, made_up
from jigsaw_triton.evaluation.profiling.workers import MemoryMethod, ProfilingWorkers, without_log
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.runtime.dtypes import Array, Arrays

Notify = Callable[[str], None]
Statistics = Sequence[Mapping[str, Any]]
"""Triton's statistics of a model, one entry per server."""

_SEED = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """A row of profiles.csv, with figures that show how reliable it is.

    Attributes:
        row: Row with the measured figures.
        batches: Number of measured batches.
        full: Share of the model's executions that had a full batch.
        seconds: Duration of the measurement, without the start of the model and the warm-up.
        half_widths: Half widths of the confidence intervals; None if there are too few batches for them.
        confident: True if the measurement ended because the intervals were narrow enough.
        memory: Method by which the memory was measured.
    """

    row: ProfileRow
    batches: int
    full: float
    seconds: float
    half_widths: HalfWidths | None
    confident: bool
    memory: MemoryMethod


@dataclass(frozen=True, slots=True)
class Failure:
    """A configuration that could not be measured.

    Attributes:
        key: Configuration.
        reason: Reason in one line.
        log: End of the workers' logs, in lines; empty if they say nothing.
    """

    key: ProfileKey
    reason: str
    log: str = ""


class Profiler:
    """Measures variants of a graph.

    For each configuration the model is loaded with exactly the configuration's instances and `max_batch_size`. A larger
    `max_batch_size` would make Triton merge smaller batches, or delay them to wait for more.

    Args:
        graph: Graph with the variants.
        workers: Workers that serve the models.
        templates: Templates of model repositories by name.
        warn: Callback for warnings to the user.
    """

    def __init__(
        self,
        graph: TaskGraph,
        workers: ProfilingWorkers,
        templates: Mapping[str, Template],
        warn: Notify,
    ) -> None:
        self._graph = graph
        self._workers = workers
        self._models = Models(graph, templates)
        self._warn = warn
        self._calls: dict[str, list[Arrays]] = {}

    def on(self, workers: ProfilingWorkers) -> "Profiler":
        """Returns a profiler with the same inputs that measures on other workers."""
        other = copy(self)
        other._workers = workers
        return other

    async def prepare(self, tasks: Sequence[str], kind: str, progress: Notify) -> None:
        """Makes the inputs of tasks from the graph's samples, for which upstream tasks run once.

        Args:
            tasks: Names of the tasks to measure.
            kind: Kind of the slice on which upstream tasks run.
            progress: Callback that receives a description of each step.

        Raises:
            InputError: A sample has errors.
            ServerError: The workers do not start.
        """
        inputs, without_sample = request_tensors(self._graph)
        if without_sample:
            self._warn(
                f"no sample of {', '.join(without_sample)}: figures are measured with made-up data and may be far from "
                "those of real input"
            )
        tensors = {TensorRef(GRAPH_INPUTS, name): array for name, array in inputs.items()}
        upstream = _upstream(self._graph, tasks)
        for task in self._graph.in_order():
            if task.name not in upstream and task.name not in tasks:
                continue
            if isinstance(task, PythonStep):
                self._warn(f"the Python step {task.name} is not run: tasks after it are measured with made-up data")
                tensors |= self._made_up(task)
                continue
            self._calls[task.name] = self._real_calls(task, tensors)
            if task.name in upstream:
                progress(f"running {task.name} to make the input of later tasks")
                tensors |= await self._run(task, kind)

    async def measure(self, key: ProfileKey, pace: Pace) -> Measurement | Failure:
        """Measures one configuration of a task that `prepare` has made inputs for.

        Args:
            key: Configuration.
            pace: Duration of the measurement.

        Returns:
            The measurement; a failure if the model cannot be compiled or does not load, or if a batch fails. The
            workers are stopped after a failure, which may have damaged them.

        Raises:
            ServerError: The workers do not start.
        """
        await self._workers.start(key.slice, key.instances)
        try:
            return await self._measured(key, pace)
        except (InputError, ServerError) as error:
            await self._workers.stop()
            return Failure(key, *without_log(error))

    @asynccontextmanager
    async def serving(self, key: ProfileKey) -> AsyncIterator[Load]:
        """Serves a configuration of a task that `prepare` has made inputs for within the context.

        Yields:
            The load of a closed loop on the configuration.

        Raises:
            InputError: The model cannot be compiled.
            ServerError: The workers do not start, or the model does not load or fails.
        """
        task = self._graph.tasks[key.task]
        await self._workers.start(key.slice, key.instances)
        model = self._models.compiled(self._workers, key.task, key.variant, key.slice, key.instances, key.batch)
        separate = one_by_one(self._graph, task) and not model.pads
        requests = batches(self._calls[key.task], key.batch, side_by_side=separate)
        async with self._workers.loaded(model):
            yield Load(Target(model.name, tuple(task.outputs), self._workers.connect), requests, key.instances)

    async def _measured(self, key: ProfileKey, pace: Pace) -> Measurement:
        async with self.serving(key) as load:
            before = await self._workers.statistics(load.target.model)
            loop = await closed_loop(load, pace, self._workers.processor_s)
            memory_mib = await self._workers.model_mib()
            after = await self._workers.statistics(load.target.model)
        found = figures(loop.lanes, key.batch)
        digest = model_digest(self._graph.tasks[key.task].variant(key.variant), self._models.identities)
        row = replace(_row(key, found, memory_mib), processes="mps" if self._workers.mps else "streams", model=digest)
        if self._workers.shares_processors and loop.used_s > 0:
            row = replace(row, processor_ms=float(f"{1000 * loop.used_s / (found.throughput_rps * loop.seconds):.4g}"))
        return Measurement(
            row,
            found.batches,
            full_share(before, after, key.batch),
            loop.seconds,
            loop.half_widths,
            loop.confident,
            self._workers.memory,
        )

    def _real_calls(self, task: Task, tensors: Mapping[TensorRef, Array]) -> list[Arrays]:
        found: list[Arrays] = list(calls(self._graph, task, tensors))
        if found:
            return found
        self._warn(
            f"{task.for_each} has no rows: {task.name} is measured with made-up data, so its figures may be far off"
        )
        rng = np.random.default_rng(_SEED)
        return [{name: made_up(self._graph.input_type(task, name), rng) for name in task.inputs}]

    async def _run(self, task: Task, kind: str) -> dict[TensorRef, Array]:
        """Returns the tensors that a task makes, by its most accurate variant that works; made-up ones without any."""
        real = [variant for variant in task.variants if variant.template != EMULATED]
        for variant in sorted(real, key=lambda v: v.accuracy, reverse=True):
            await self._workers.start(kind, 1)
            try:
                model = self._models.compiled(self._workers, task.name, variant.name, kind, 1, 1)
                async with self._workers.loaded(model):
                    answers = [
                        await self._workers.infer(model.name, {name: array[None] for name, array in call.items()})
                        for call in self._calls[task.name]
                    ]
                return gather(self._graph, task, answers)
            except (InputError, ServerError) as error:
                await self._workers.stop()
                self._warn(f"{task.name}.{variant.name} cannot make the input of later tasks: {error.message}")
        lacking = f"no variant of {task.name} works" if real else f"all variants of {task.name} are emulated"
        self._warn(f"{lacking}: tasks after it are measured with made-up data")
        return self._made_up(task)

    def _made_up(self, node: Task | PythonStep) -> dict[TensorRef, Array]:
        rng = np.random.default_rng(_SEED)
        refs = [TensorRef(node.name, name) for name in node.outputs]
        return {ref: made_up(self._graph.type_of(ref), rng) for ref in refs}


def full_share(before: Statistics, after: Statistics, batch: int) -> float:
    """Returns the share of executions with exactly `batch` items between two readings of a model's statistics."""
    executions = _executions(after)
    executions.subtract(_executions(before))
    total = executions.total()
    return executions[batch] / total if total else 0.0


def _executions(statistics: Statistics) -> Counter[int]:
    """Returns the number of executions on all servers by batch size."""
    found: Counter[int] = Counter()
    for sizes in (server.get("batch_stats", ()) for server in statistics):
        found.update({int(size["batch_size"]): int(size["compute_infer"]["count"]) for size in sizes})
    return found


def _upstream(graph: TaskGraph, tasks: Sequence[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(tasks)
    while waiting:
        name = waiting.pop()
        fresh = (graph.steps.get(name) or graph.tasks[name]).dependencies() - found
        found |= fresh
        waiting += fresh
    return found


def _row(key: ProfileKey, found: Figures, memory_mib: float) -> ProfileRow:
    return ProfileRow(
        key,
        round(found.latency_p50_ms, 3),
        round(found.latency_p95_ms, 3),
        round(found.latency_p99_ms, 3),
        round(found.throughput_rps, 2),
        round(memory_mib, 1),
        "measured",
    )
