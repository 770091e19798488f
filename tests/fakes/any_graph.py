"""Random task graphs with known answers, and requests to them.

The graphs have chains, forks, joins, fan-out over inputs and outputs, nested fan-out, conditions, Python steps and
several outputs. A random generator determines each graph: hypothesis passes one that it controls, and tests with real
servers pass a seeded one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from jigsaw_triton.graph.model import PythonStep, Slo, Task, TaskGraph, Variant, When
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy
from tests.fakes import arithmetic
from tests.fakes.graphs import graph
from tests.fakes.problems import row

VECTOR, ROWS = TensorType("INT64", (2,)), TensorType("INT64", (-1, 2))
LIST, SCORE, TEXT = TensorType("INT64", (-1,)), TensorType("FP32", (1,)), TensorType("BYTES", (1,))
INPUTS = {"X": VECTOR, "ROWS": ROWS, "LIST": LIST, "FLAG": SCORE}
SLO = Slo(latency_ms=10_000.0, accuracy=1.0)
MODEL_FILE = "model.py"
MODEL = Path(arithmetic.__file__)

Values = Mapping[TensorRef, Array]
"""Tensors of one request, without a batch dimension."""


def any_graph(rng: Random, *, name: str = "any", steps: bool = True) -> TaskGraph:
    """Returns a random valid graph.

    Args:
        rng: Random generator, which determines the graph.
        name: Name of the graph.
        steps: True if the graph may have Python steps.
    """
    builder = _Builder(rng)
    for number in range(rng.randint(1, 5)):
        if steps and number and _chance(rng, 0.12):
            builder.add_step(f"s{number}")
        else:
            builder.add_task(f"t{number}")
    return builder.graph(name)


def _chance(rng: Random, probability: float) -> bool:
    """Returns True with this probability, and False for a draw of 0, to which hypothesis shrinks."""
    return rng.random() > 1 - probability


class _Builder:
    """Builder of a graph, which is valid after each addition."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._tasks: list[Task] = []
        self._steps: list[PythonStep] = []

    def add_task(self, name: str) -> None:
        """Adds a task on random existing tensors, and a second one that iterates over its rows if they are nested."""
        rng, so_far = self._rng, self._so_far()
        refs = list(_tensors(so_far))
        rows = [ref for ref in refs if len(so_far.type_of(ref).shape) > 1]
        over = rng.choice(rows) if rows and _chance(rng, 0.45) else None
        scores = [ref for ref in refs if so_far.type_of(ref) == SCORE]
        when = When(rng.choice(scores), 0.5, None, 0.5) if scores and _chance(rng, 0.3) else None
        inputs = self._inputs(over, so_far, refs)
        outputs = {"Y": rng.choice([VECTOR, TEXT])}
        alone = over is None and when is None
        if alone and _chance(rng, 0.4):
            outputs["S"] = SCORE
        if _chance(rng, 0.5 if alone else 0.3):
            outputs["R"] = ROWS
        counts = {"N": "R"} if "R" in outputs and _chance(rng, 0.5) else {}
        self._tasks.append(replace(_task(name, inputs, outputs, over, when), counts=counts))
        if "R" in outputs and not alone:
            rows_of_rows = TensorRef(name, "R")
            self._tasks.append(_task(f"{name}r", {"I0": rows_of_rows}, {"Y": VECTOR}, rows_of_rows, None))

    def add_step(self, name: str) -> None:
        """Adds a Python step on random existing tensors."""
        refs = list(_tensors(self._so_far()))
        inputs = {f"I{n}": ref for n, ref in enumerate(self._rng.sample(refs, min(len(refs), self._rng.randint(1, 3))))}
        outputs = {"Y": VECTOR, "R": ROWS, "S": SCORE}
        code = f"{MODEL.read_text()}\n\ndef step(**inputs):\n    return compute({name!r}, {_kinds(outputs)}, inputs)\n"
        self._steps.append(PythonStep(name, inputs, outputs, f"{name}.py", code, 1.0, {"R": 1.5}))

    def graph(self, name: str) -> TaskGraph:
        """Returns the graph, whose outputs are all tensors of unconsumed nodes and some others."""
        so_far, rng = self._so_far(), self._rng
        nodes: list[Task | PythonStep] = [*self._tasks, *self._steps]
        used = {ref for node in nodes for ref in _consumed(node)}
        produced = [TensorRef(node.name, output) for node in nodes for output in node.makes]
        unconsumed = [node.name for node in nodes if not any(ref.task == node.name for ref in used)]
        outputs = [ref for ref in produced if ref.task in unconsumed or _chance(rng, 0.25)]
        if _chance(rng, 0.08):
            outputs.append(rng.choice(outputs))
        inputs = {n: kind for n, kind in INPUTS.items() if TensorRef(GRAPH_INPUTS, n) in used}
        if _chance(rng, 0.08):
            outputs.append(TensorRef(GRAPH_INPUTS, next(iter(inputs))))
        named = {f"OUT{n}": str(ref) for n, ref in enumerate(outputs)}
        order = {node.name: at for at, node in enumerate(so_far.in_order())}
        return graph(
            sorted(self._tasks, key=lambda task: order[task.name]),
            named,
            name=name,
            slo=SLO,
            inputs=inputs,
            steps=self._steps,
        )

    def _so_far(self) -> TaskGraph:
        return graph(self._tasks, {}, inputs=INPUTS, steps=self._steps)

    def _inputs(self, over: TensorRef | None, so_far: TaskGraph, refs: Sequence[TensorRef]) -> dict[str, TensorRef]:
        """Returns one to three inputs.

        A task that iterates over `over` may also take outputs of tasks that iterate over it, and whole tensors.
        """
        rng = self._rng
        if over is None and self._tasks and _chance(rng, 0.3):
            # Only tensors of the previous task, so that the two can form a chain.
            chosen = [ref for ref in refs if ref.task == self._tasks[-1].name]
        elif over is None:
            chosen = rng.sample(refs, min(len(refs), rng.randint(1, 3)))
        else:
            beside = [TensorRef(t.name, "Y") for t in self._tasks if t.for_each == over and t.when is None]
            whole = [ref for ref in refs if so_far.type_of(ref).shape[0] != -1]
            more = [ref for ref in (*beside, *whole) if ref != over]
            chosen = [over, *rng.sample(more, min(len(more), rng.randint(0, 2)))]
        return {f"I{n}": ref for n, ref in enumerate(chosen)}


def _tensors(graph: TaskGraph) -> Iterator[TensorRef]:
    yield from (TensorRef(GRAPH_INPUTS, name) for name in graph.inputs)
    yield from (TensorRef(node.name, output) for node in graph.in_order() for output in node.makes)


def _consumed(node: Task | PythonStep) -> Iterator[TensorRef]:
    yield from node.inputs.values()
    if isinstance(node, Task) and node.when is not None:
        yield node.when.tensor


def _kinds(outputs: Mapping[str, TensorType]) -> dict[str, tuple[str, list[int]]]:
    return {name: (kind.dtype, list(kind.shape)) for name, kind in outputs.items()}


def _task(
    name: str,
    inputs: Mapping[str, TensorRef],
    outputs: Mapping[str, TensorType],
    over: TensorRef | None,
    when: When | None,
) -> Task:
    variant = Variant(
        "v0",
        1.0,
        "python",
        artifacts={MODEL_FILE: Path(MODEL_FILE)},
        parameters={"task": name, "outputs": json.dumps(_kinds(outputs))},
        yields={"R": 1.5} if "R" in outputs else {},
    )
    return Task(name, inputs, outputs, (variant,), over, when)


def write_application(graph: TaskGraph, folder: Path) -> Path:
    """Writes the graph with its models, steps and profiles as a user would, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(graph.to_yaml())
    (folder / MODEL_FILE).write_text(MODEL.read_text())
    for step in graph.steps.values():
        (folder / step.file).write_text(step.source)
    rows = [row(task, "v0", batch=batch, p95_ms=5.0) for task in graph.tasks for batch in (1, 4)]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


def requests(rng: Random, graph: TaskGraph, count: int) -> list[dict[str, Array]]:
    """Returns inputs of requests, without a batch dimension, whose equal shapes allow them to form one batch."""
    sizes = {name: rng.randint(0, 3) for name in graph.inputs}

    def tensor(name: str, kind: TensorType) -> Array:
        shape = [sizes[name] if size == -1 else size for size in kind.shape]
        limit = 2 if kind == SCORE else 10
        values = [rng.randrange(limit) for _ in range(int(np.prod(shape)))]
        return np.array(values, to_numpy(kind.dtype)).reshape(shape)

    return [{name: tensor(name, value.type) for name, value in graph.inputs.items()} for _ in range(count)]


def evaluate(graph: TaskGraph, inputs: Arrays, suffix: str = "") -> Values:
    """Returns all tensors of a request. Tasks compute their outputs by their name with the suffix appended.

    The values follow the reference of graph.yaml and share no code with the compiler or the runtime.
    """
    values: dict[TensorRef, Array] = {TensorRef(GRAPH_INPUTS, name): array for name, array in inputs.items()}
    for node in graph.in_order():
        if isinstance(node, PythonStep):
            outputs = arithmetic.compute(
                node.name, _kinds(node.outputs), {n: values[ref] for n, ref in node.inputs.items()}
            )
            values |= {TensorRef(node.name, name): array for name, array in outputs.items()}
        else:
            values |= _evaluate_task(graph, node, values, suffix)
    return values


def _evaluate_task(graph: TaskGraph, task: Task, values: Values, suffix: str) -> dict[TensorRef, Array]:
    runs = task.when is None or float(values[task.when.tensor][0]) > 0.5
    rows = 1 if task.for_each is None else len(values[task.for_each])
    calls = [
        arithmetic.compute(
            task.name + suffix,
            _kinds(task.outputs),
            {n: values[ref][row] if graph.iterated(task, ref) else values[ref] for n, ref in task.inputs.items()},
        )
        for row in range(rows if runs else 0)
    ]
    found = {}
    for name, kind in task.outputs.items():
        ref, arrays = TensorRef(task.name, name), [call[name] for call in calls]
        if task.for_each is None and task.when is None:
            found[ref] = arrays[0]
        elif graph.makes_rows(ref):
            found[ref] = np.concatenate([_empty(kind)[0], *arrays])
        else:
            found[ref] = np.concatenate([_empty(kind), *(array[None] for array in arrays)])
    for name, output in task.counts.items():
        counts = np.array([[len(call[output])] for call in calls], np.int64).reshape(-1, 1)
        found[TensorRef(task.name, name)] = counts[0] if task.for_each is None and task.when is None else counts
    return found


def _empty(kind: TensorType) -> Array:
    """Returns a tensor without rows; for a type with a variable number of rows, one row that has none."""
    return np.empty((1, 0, *kind.shape[1:]) if kind.shape[0] == -1 else (0, *kind.shape), to_numpy(kind.dtype))
