"""Problems for the planner: the reference graphs with the A100 table, if it is available, and made-up problems.

In made-up problems each task has three variants, and each variant is profiled on five slices with seven pairs of
instances and batch.
"""

import math
import random
from collections.abc import Sequence

from benchmarks.a100 import TABLE, a100_table, reference_graph
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import GraphInput, Slo, Task, TaskGraph, Variant, Workload
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

BOARD = "A100-80GB"

SLICES = {"1g": 1.0, "2g": 1.9, "3g": 2.7, "4g": 3.5, "7g": 5.6}
"""Slice -> speed of a model on it, relative to 1g. As with small models, it grows less than the slice."""

SHAPES = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (2, 4), (3, 8))
"""Pairs (instances, batch) of each variant's profiles. With three variants and five slices, a task has 105 rows."""

ITEM_MS = {"small": 4.0, "medium": 9.0, "large": 20.0}
ACCURACY = {"small": 0.86, "medium": 0.94, "large": 1.0}

RPS_PER_GPU = 120.0
"""Demand for each GPU on the made-up graph of three tasks. It takes most of the GPU's slices."""

A100_RPS_PER_GPU = {"social": 469.0, "traffic": 333.0, "assistant": 349.0}
"""Demand for each GPU on each reference graph: three quarters of the capacity of four GPUs, divided by four."""

TENSOR = TensorType("FP32", (16,))
VARIANTS = tuple(Variant(name, accuracy, "emulated") for name, accuracy in ACCURACY.items())


def cluster(gpus: int) -> Cluster:
    """Returns a cluster of A100s, with eight GPUs on each node."""
    return Cluster(tuple(Gpu(GpuId(f"n{index // 8:04}", index % 8), board(BOARD)) for index in range(gpus)))


def a100_names() -> tuple[str, ...]:
    """Returns the names of the reference graphs of three tasks; none if the table is missing."""
    return ("traffic", "assistant") if TABLE.exists() else ()


def a100_problem(name: str, gpus: int) -> Problem:
    """Returns a reference graph with the A100 table and a demand that takes about three quarters of the GPUs."""
    graph = reference_graph(name)
    return Problem((Workload(graph, A100_RPS_PER_GPU[name] * gpus),), cluster(gpus), {name: a100_table(graph)})


def fan_out_problem(
    rng: random.Random, gpus: int, *, rps_per_gpu: float = RPS_PER_GPU, slo: Slo | None = None
) -> Problem:
    """Returns a made-up graph: detect, then classify for each of several rows, then describe."""
    rows = rng.uniform(1.5, 3.0)
    yields = {"small": 0.8 * rows, "medium": 0.95 * rows, "large": rows}
    detect = Task(
        "detect",
        {"X": TensorRef("inputs", "X")},
        {"ROWS": TENSOR.rows()},
        tuple(Variant(name, a, "emulated", yields={"ROWS": yields[name]}) for name, a in ACCURACY.items()),
    )
    rows_of = TensorRef("detect", "ROWS")
    classify = Task("classify", {"X": rows_of}, {"Y": TENSOR}, VARIANTS, for_each=rows_of)
    describe = Task("describe", {"X": TensorRef("classify", "Y")}, {"Y": TENSOR}, VARIANTS)
    tasks = {task.name: task for task in (detect, classify, describe)}
    slo = slo or Slo(latency_ms=250.0, accuracy=0.85)
    graph = TaskGraph("bench", slo, {"X": GraphInput(TENSOR)}, {"Y": TensorRef("describe", "Y")}, tasks)
    workload = Workload(graph, rps_per_gpu * gpus)
    return Problem((workload,), cluster(gpus), {graph.name: profiles(rng, list(tasks))})


def chain_or_tree(rng: random.Random, tasks: int, *, tree: bool, gpus: int) -> Problem:
    """Returns a made-up chain of tasks, or a binary tree."""
    depth = math.ceil(math.log2(tasks + 1)) if tree else tasks
    parents = [(i - 1) // 2 if tree else i - 1 for i in range(tasks)]
    graph = _plain("large", parents, Slo(latency_ms=75.0 * depth, accuracy=0.97**depth))
    return Problem((Workload(graph, 7200.0 / tasks),), cluster(gpus), {graph.name: profiles(rng, list(graph.tasks))})


def many_graphs(rng: random.Random, graphs: int, gpus: int) -> Problem:
    """Returns made-up chains of three tasks, with different SLOs and demands."""
    workloads, tables = [], {}
    for number in range(graphs):
        slo = Slo(latency_ms=rng.uniform(150, 350), accuracy=rng.uniform(0.75, 0.95))
        graph = _plain(f"graph{number:02}", (-1, 0, 1), slo)
        tables[graph.name] = profiles(rng, list(graph.tasks))
        workloads.append(Workload(graph, rng.uniform(200, 900)))
    return Problem(tuple(workloads), cluster(gpus), tables)


def _plain(name: str, parents: Sequence[int], slo: Slo) -> TaskGraph:
    """Returns a graph in which each task takes the output of one other task, or the graph's input.

    Args:
        name: Name of the graph.
        parents: Index of the task before each task; -1 for the graph's input.
        slo: SLO of the graph.
    """
    sources = [TensorRef("inputs", "X") if parent < 0 else TensorRef(f"t{parent}", "Y") for parent in parents]
    tasks = {f"t{i}": Task(f"t{i}", {"X": source}, {"Y": TENSOR}, VARIANTS) for i, source in enumerate(sources)}
    outputs = {f"Y{i}": TensorRef(f"t{i}", "Y") for i in range(len(parents)) if i not in parents}
    return TaskGraph(name, slo, {"X": GraphInput(TENSOR)}, outputs, tasks)


def profiles(rng: random.Random, tasks: Sequence[str]) -> ProfileTable:
    """Returns made-up profiles. Latency grows more slowly than batch size and instances, with some scatter."""
    return ProfileTable(
        _row(rng, ProfileKey(BOARD, task, variant, kind, instances, batch), item_ms * scale)
        for task in tasks
        for scale in (rng.uniform(0.5, 1.5),)
        for variant, item_ms in ITEM_MS.items()
        for kind in SLICES
        for instances, batch in SHAPES
    )


def _row(rng: random.Random, key: ProfileKey, item_ms: float) -> ProfileRow:
    busy = 0.35 + 0.65 * key.instances
    p50_ms = item_ms * (0.35 + 0.65 * key.batch) * busy / SLICES[key.slice] * rng.uniform(0.9, 1.1)
    throughput_rps = 1000 * key.batch * key.instances / p50_ms
    return ProfileRow(key, p50_ms, 1.2 * p50_ms, 1.4 * p50_ms, throughput_rps, 900.0 * key.instances, "assumed")


def random_problem(rng: random.Random, share: float) -> Problem:
    """Returns the fan-out graph on one to six GPUs with a random demand and SLO, and this share of its profiles."""
    slo = Slo(latency_ms=rng.uniform(60.0, 400.0), accuracy=rng.uniform(0.65, 0.98))
    base = fan_out_problem(rng, rng.randint(1, 6), rps_per_gpu=rng.uniform(5.0, 150.0), slo=slo)
    known = [row for row in base.profiles["bench"].rows() if rng.random() < share]
    return Problem(base.workloads, base.cluster, {"bench": ProfileTable(known)})


def small_problem(rng: random.Random) -> Problem:
    """Returns a problem for exhaustive search: one or two tasks of up to three configurations, on one or two GPUs."""
    graph = _plain(
        "small", (-1, 0)[: rng.randint(1, 2)], Slo(rng.uniform(20, 160), accuracy=rng.choice((0.7, 0.85, 1.0)))
    )
    rows = [
        _row(rng, ProfileKey(BOARD, task, rng.choice(list(ITEM_MS)), rng.choice(list(SLICES)), 1, batch), 10.0)
        for task in graph.tasks
        for batch in (1, 2, 4)[: rng.randint(1, 3)]
    ]
    return Problem((Workload(graph, rng.uniform(10, 500)),), cluster(rng.randint(1, 2)), {"small": ProfileTable(rows)})
