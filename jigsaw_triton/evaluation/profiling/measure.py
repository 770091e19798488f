"""Measures the configurations of a graph's variants, each as a deployment would run it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.compiler.front import one_by_one
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import EMULATED, Server, worker_model
from jigsaw_triton.evaluation.load import request_tensors
from jigsaw_triton.evaluation.profiling.figures import Figures, figures
from jigsaw_triton.evaluation.profiling.load import Pace, Target, closed_loop
from jigsaw_triton.evaluation.profiling.stand import Stand
from jigsaw_triton.evaluation.profiling.tensors import batches, calls, gathered, made_up
from jigsaw_triton.graph.model import GRAPH_INPUTS, PythonStep, Task, TaskGraph, TensorRef
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.runtime.dtypes import Array, Arrays

Tell = Callable[[str], None]
Statistics = Sequence[Mapping[str, Any]]
"""What Triton counted of a model, a server each."""

_SEED = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """A row of profiles.csv and how sure one may be of it.

    Attributes:
        row: The figures.
        batches: How many were measured.
        full: Share of the model's executions that had as many items as a batch.
    """

    row: ProfileRow
    batches: int
    full: float


class Bench:
    """Measures variants of a graph.

    A model is loaded for each point, with exactly the instances and the `max_batch_size` of it. On a load for larger
    batches the smaller ones would be joined, or kept waiting for more.

    Args:
        graph: That has the variants.
        stand: To measure on.
        templates: Of model repositories.
        pace: Of each point.
        warn: Told what the user should not overlook.
    """

    def __init__(
        self, graph: TaskGraph, stand: Stand, templates: Mapping[str, Template], pace: Pace, warn: Tell
    ) -> None:
        self._graph = graph
        self._stand = stand
        self._templates = templates
        self._pace = pace
        self._warn = warn
        self._identities = Identities()
        self._generations = count(1)
        self._calls: dict[str, list[Arrays]] = {}

    async def prepare(self, tasks: Sequence[str], kind: str, tell: Tell) -> None:
        """Makes the input of tasks from the graph's samples: what is upstream of them runs once.

        Args:
            tasks: That will be measured.
            kind: Of the slice that upstream tasks run on.
            tell: Told what is being done.

        Raises:
            InputError: A sample is not right, or a model cannot be compiled.
            ServerError: An upstream task fails.
        """
        inputs, lacking = request_tensors(self._graph)
        if lacking:
            self._warn(
                f"no sample of {', '.join(lacking)}: made-up data, so figures may be far from those of real input"
            )
        tensors = {TensorRef(GRAPH_INPUTS, name): array for name, array in inputs.items()}
        upstream = _upstream(self._graph, tasks)
        for task in self._graph.in_order():
            if task.name not in upstream and task.name not in tasks:
                continue
            if isinstance(task, PythonStep):
                self._warn(f"{task.name} is code, which is not run for this: made-up data behind it")
                tensors |= self._made_up(task)
                continue
            self._calls[task.name] = self._real_calls(task, tensors)
            if task.name in upstream:
                tell(f"running {task.name} for the input of what follows it")
                tensors |= await self._run(task, kind)

    async def measure(self, key: ProfileKey) -> Measurement:
        """Measures one point of a task that was prepared.

        Raises:
            InputError: The model cannot be compiled.
            ServerError: The model does not load, or fails.
        """
        task = self._graph.tasks[key.task]
        await self._stand.cut(key.slice, key.instances)
        model = self._compiled(task, key.variant, key.slice, key.instances, key.batch)
        alone = one_by_one(self._graph, task) and not model.pads
        requests = batches(self._calls[key.task], key.batch, side_by_side=alone)
        async with self._stand.loaded(model):
            before = await self._stand.statistics(model.name)
            target = Target(model.name, tuple(task.outputs), self._stand.connect)
            lanes = await closed_loop(target, requests, key.instances, self._pace)
            memory_mib = await self._stand.model_mib()
            after = await self._stand.statistics(model.name)
        found = figures(lanes, key.batch)
        return Measurement(_row(key, found, memory_mib), found.batches, full_share(before, after, key.batch))

    def _real_calls(self, task: Task, tensors: Mapping[TensorRef, Array]) -> list[Arrays]:
        found: list[Arrays] = list(calls(self._graph, task, tensors))
        if found:
            return found
        self._warn(f"{task.for_each} has no rows: made-up data for {task.name}, so its figures may be far off")
        rng = np.random.default_rng(_SEED)
        return [{name: made_up(self._graph.input_type(task, name), rng) for name in task.inputs}]

    async def _run(self, task: Task, kind: str) -> dict[TensorRef, Array]:
        """The tensors that a task makes with its most accurate variant; made-up ones where all are emulated."""
        real = [variant for variant in task.variants if variant.template != EMULATED]
        if not real:
            self._warn(f"{task.name} has emulated variants alone: made-up data behind it")
            return self._made_up(task)
        best = max(real, key=lambda variant: variant.accuracy)
        await self._stand.cut(kind, 1)
        model = self._compiled(task, best.name, kind, 1, 1)
        async with self._stand.loaded(model):
            answers = [
                await self._stand.infer(model.name, {name: array[None] for name, array in call.items()})
                for call in self._calls[task.name]
            ]
        return gathered(self._graph, task, answers)

    def _made_up(self, node: Task | PythonStep) -> dict[TensorRef, Array]:
        rng = np.random.default_rng(_SEED)
        refs = [TensorRef(node.name, name) for name in node.outputs]
        return {ref: made_up(self._graph.type_of(ref), rng) for ref in refs}

    def _compiled(self, task: Task, variant: str, kind: str, instances: int, batch: int) -> WorkerModel:
        board = self._stand.gpu.board
        server = Server(
            board,
            kind,
            self._stand.backends,
            gpu=board.arch != "cpu",
            shared=False,
            processes=instances if self._stand.mps else 1,
        )
        return worker_model(
            self._graph,
            PlacedModel(self._graph.name, task.name, variant, instances, batch),
            server,
            None,
            generation=next(self._generations),
            templates=self._templates,
            identity=self._identities,
        )


def full_share(before: Statistics, after: Statistics, batch: int) -> float:
    """Share of the executions between two looks at a model's statistics that had exactly `batch` items."""
    made = _executions(after)
    made.subtract(_executions(before))
    total = made.total()
    return made[batch] / total if total else 0.0


def _executions(statistics: Statistics) -> Counter[int]:
    """Batch size -> executions, on all servers."""
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
