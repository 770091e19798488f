"""Generated graphs with assumed profiles for H100 slices, which cover what graphs may be like.

Each number is drawn from a range that contains the applications social, traffic and ar (`benchmarks.networks`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.h100 import BATCHES, BOARD, cost_rows, slowest_path_ms
from jigsaw_triton.evaluation.launching import Cost
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import GraphInput, Slo, Task, TaskGraph, Variant
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.profiles.table import ProfileTable

SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((),),
    ((), ()),
    ((), (0,)),
    ((), (0,), (0,)),
    ((), (0,), (1,)),
)
"""Shapes of graphs: for each task the tasks that it follows."""

VARIANTS = (1, 5)
"""Fewest and most variants of a task."""

LAUNCH_MS = (0.5, 50.0)
"""Launch times of a batch: those of the networks are 0.7 ms (vgg11) to 45 ms (git-large)."""

LAUNCH_SHARES = (0.3, 0.99)
"""Shares of the launch time in the time of one item on a whole GPU: those of the networks are 0.58 to 0.99."""

SHRINKING = (0.2, 0.9)
"""Compute time of a variant relative to that of the next larger one."""

LOSSES = (0.002, 0.06)
"""Accuracy that a variant loses to the next larger one, as a share."""

ROWS = (1.0, 4.0)
"""Rows that the first task makes of a request, if it makes rows."""

FAN_OUTS = 0.3
"""Share of the graphs whose first task makes rows."""

ACCURACIES = (0.85, 1.0)
TIGHTNESSES = (2.5, 20.0)
"""SLOs, as multiples of the 95th percentile of the best variants, each alone on a whole GPU."""

PARAMETERS_M = 50.0
"""Parameters of all variants, in millions. Memory is not what this study is about."""

_TENSOR = TensorType("FP32", (1,))


@dataclass(frozen=True, slots=True)
class Generated:
    """A graph and its profiles.

    Attributes:
        graph: Graph.
        table: Profiles.
    """

    graph: TaskGraph
    table: ProfileTable


def generated(seed: int) -> Generated:
    """Returns the graph with this seed."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    rows = float(rng.uniform(*ROWS)) if rng.random() < FAN_OUTS else 1.0
    tasks, costs = {}, {}
    for number, before in enumerate(shape):
        name = f"t{number}"
        of_variants = _costs(rng)
        yields = {"Y": rows} if number == 0 and rows > 1 else {}
        tasks[name] = _task(name, before, _accuracies(rng, len(of_variants)), yields, iterates=number > 0 and rows > 1)
        costs[name] = of_variants
    slo = Slo(1.0, accuracy=round(float(rng.uniform(*ACCURACIES)), 3))
    graph = TaskGraph(f"generated{seed}", slo, {"X": GraphInput(_TENSOR)}, {"Y": TensorRef(name, "Y")}, tasks)
    tightness = _between(rng, TIGHTNESSES)
    latency_ms = tightness * slowest_path_ms(graph, {name: of_variants[0] for name, of_variants in costs.items()})
    graph = replace(graph, slo=replace(slo, latency_ms=latency_ms))
    batches = BATCHES[: rng.integers(len(BATCHES)) + 1]
    table = ProfileTable(
        row
        for name, of_variants in costs.items()
        for number, taken in enumerate(of_variants)
        for row in cost_rows(name, f"v{number}", taken, PARAMETERS_M, batches)
    )
    return Generated(graph, table)


def _costs(rng: np.random.Generator) -> list[Cost]:
    """Returns the costs of a task's variants, the largest and most accurate first."""
    launch_s, share = _between(rng, LAUNCH_MS) / 1000, float(rng.uniform(*LAUNCH_SHARES))
    item_s = launch_s * (1 / share - 1) * _sm()
    found = []
    for _ in range(rng.integers(*VARIANTS, endpoint=True)):
        found.append(Cost(launch_s, item_s))
        shrunk = float(rng.uniform(*SHRINKING))
        launch_s, item_s = launch_s * shrunk ** float(rng.uniform(0, 1)), item_s * shrunk
    return found


def _accuracies(rng: np.random.Generator, count: int) -> list[float]:
    accuracies = [1.0]
    for _ in range(count - 1):
        accuracies.append(accuracies[-1] * (1 - float(rng.uniform(*LOSSES))))
    return accuracies


def _task(
    name: str, before: Sequence[int], accuracies: Sequence[float], yields: Mapping[str, float], *, iterates: bool
) -> Task:
    inputs = {f"X{number}": TensorRef(f"t{number}", "Y") for number in before} or {"X": TensorRef(GRAPH_INPUTS, "X")}
    return Task(
        name=name,
        inputs=inputs,
        outputs={"Y": _TENSOR.rows() if yields else _TENSOR},
        variants=tuple(
            Variant(f"v{number}", accuracy, template="emulated", yields=yields)
            for number, accuracy in enumerate(accuracies)
        ),
        for_each=next(iter(inputs.values())) if iterates else None,
    )


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Draws a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log(ends))))


def _sm() -> int:
    sm = board(BOARD).profiles["7g"].sm
    assert sm is not None
    return sm
