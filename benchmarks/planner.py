"""How fast the planner proves the optimum, and whether its plans hold what they say.

The graph and its profiles are made up: three tasks in a chain with a fan-out, three variants each, A100-80GB.
"""

import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks import harness
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import GraphInput, Slo, Task, TaskGraph, TensorRef, TensorType, Variant, Workload
from jigsaw_triton.planner.problem import Options, Problem
from jigsaw_triton.planner.solve import make_plan
from jigsaw_triton.planner.validate import violations
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

BOARD = "A100-80GB"
GPUS = {4: 15.0, 120: 15.0, 1000: 45.0}
"""Size of the cluster -> seconds that a plan may take: all together stay within a benchmark's time."""

ROUNDS = 3
SEED = 2603
INSTANCES = 40
INSTANCE_LIMIT_S = 3.0
INSTANCE_ROWS = 0.2
"""Share of the configurations that an instance has profiles of."""

SLICES = {"1g": 1.0, "2g": 1.9, "3g": 2.7, "4g": 3.5, "7g": 5.6}
"""Slice -> how much faster than 1g a model is on it: less than its share of the board, as small models are."""

SHAPES = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (2, 4), (3, 8))
"""(instances, batch) that each variant is profiled with: with three variants and five slices 105 rows a task."""

TASKS = ("detect", "classify", "describe")
ITEM_MS = {"small": 4.0, "medium": 9.0, "large": 20.0}
ACCURACY = {"small": 0.86, "medium": 0.94, "large": 1.0}
RPS_PER_GPU = 120.0
"""Of demand: what takes most of a GPU's slices."""

TENSOR = TensorType("FP32", (16,))


def graph(rng: random.Random, slo: Slo) -> TaskGraph:
    """A chain: detect, for each of some rows classify, describe."""
    rows = rng.uniform(1.5, 3.0)
    yields = {"small": 0.8 * rows, "medium": 0.95 * rows, "large": rows}
    detect = Task(
        "detect",
        {"X": TensorRef("inputs", "X")},
        {"ROWS": TENSOR.rows()},
        tuple(Variant(name, a, "emulated", yields={"ROWS": yields[name]}) for name, a in ACCURACY.items()),
    )
    others = tuple(Variant(name, a, "emulated") for name, a in ACCURACY.items())
    rows_of = TensorRef("detect", "ROWS")
    classify = Task("classify", {"X": rows_of}, {"Y": TENSOR}, others, for_each=rows_of)
    describe = Task("describe", {"X": TensorRef("classify", "Y")}, {"Y": TENSOR}, others)
    tasks = {task.name: task for task in (detect, classify, describe)}
    return TaskGraph("bench", slo, {"X": GraphInput(TENSOR)}, {"Y": TensorRef("describe", "Y")}, tasks)


def profiles(rng: random.Random) -> ProfileTable:
    """Latencies that grow less than the batch, and less than the number of instances; with some scatter."""
    return ProfileTable(
        _row(rng, ProfileKey(BOARD, task, variant, kind, instances, batch), item_ms * scale)
        for task in TASKS
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


def problem(rng: random.Random, gpus: int, *, rps_per_gpu: float = RPS_PER_GPU, slo: Slo | None = None) -> Problem:
    """The graph on that many GPUs, with a demand that takes most of them."""
    task_graph = graph(rng, slo or Slo(latency_ms=250.0, accuracy=0.85))
    cluster = Cluster(tuple(Gpu(GpuId(f"n{index // 8:03}", index % 8), board(BOARD)) for index in range(gpus)))
    workload = Workload(task_graph, rps_per_gpu * gpus)
    return Problem((workload,), cluster, {task_graph.name: profiles(rng)})


def optimum(gpus: int, tell: Tell) -> list[Figure]:
    """How many of the instances were proven within the limit, and how long it took: left out where most were not."""
    seconds, busy, used = [], [], []
    limit_s = GPUS[gpus]
    for number in range(ROUNDS):
        asked = problem(random.Random(SEED + number), gpus)
        began, worked = time.monotonic(), _processor_s()
        plan = make_plan(asked, Options(time_limit_s=limit_s))
        took_s = time.monotonic() - began
        tell(f"{gpus} GPUs, {took_s:.2f} s, {plan.solver.status}, {plan.slices_used} of {plan.slices_total} slices")
        seconds.append(took_s if plan.solver.status == "optimal" else math.inf)
        busy.append(_processor_s() - worked)
        used.append(100 * plan.slices_used / plan.slices_total)
    proven = [s for s in seconds if s < math.inf]
    limit = f"of {ROUNDS} instances within {limit_s:g} s"
    found = [figure(f"planner.proven.{gpus}_gpus", len(proven) / ROUNDS, "share", limit, at_least=1.0)]
    if median(seconds) < math.inf:
        rows = len(asked.profiles["bench"]) // len(TASKS)
        note = (
            f"median of {ROUNDS} instances, proven ones {spread(proven)}, processor time of all {spread(busy)} s;"
            f" 3 tasks, {rows} configurations each, {spread(used)}% of the slices used; with starting and checking"
        )
        found.append(figure(f"planner.optimum_s.{gpus}_gpus", median(seconds), "s", note))
    return found


def _processor_s() -> float:
    """Time that processors have worked for this process and for those it has started and seen end."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def placed(tell: Tell) -> Figure:
    """The share of plans for random instances in which the independent check finds nothing wrong."""
    options = Options(time_limit_s=INSTANCE_LIMIT_S)
    accepted: list[bool] = []
    infeasible = 0
    for number in range(INSTANCES):
        asked = _random_problem(random.Random(f"{SEED} {number}"))
        try:
            accepted.append(not violations(make_plan(asked, options), asked, options))
        except InfeasibleError:
            infeasible += 1
        except JigsawError as error:
            # Where its own check refused the plan, or where there was none within the limit.
            tell(f"instance {number}: {error}")
            accepted.append(False)
    note = (
        f"{len(accepted)} plans of {INSTANCES} random instances of 1 to 6 GPUs; {infeasible} instances have no plan;"
        f" at most {INSTANCE_LIMIT_S:g} s each"
    )
    return figure("planner.placed", sum(accepted) / len(accepted), "share", note, at_least=1.0)


def _random_problem(rng: random.Random) -> Problem:
    slo = Slo(latency_ms=rng.uniform(60.0, 400.0), accuracy=rng.uniform(0.65, 0.98))
    asked = problem(rng, rng.randint(1, 6), rps_per_gpu=rng.uniform(5.0, 150.0), slo=slo)
    known = [row for row in asked.profiles["bench"].rows() if rng.random() < INSTANCE_ROWS]
    return replace(asked, profiles={"bench": ProfileTable(known)})


def measure(tell: Tell) -> Sequence[Figure]:
    """All figures."""
    found = [f for gpus in GPUS for f in optimum(gpus, tell)]
    tell(f"{INSTANCES} random instances")
    return [*found, placed(tell)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("planner", measure))
