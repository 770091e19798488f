"""Assumed profiles of the applications `social`, `traffic` and `ar` on the MIG slices of an H100-80GB.

`python -m benchmarks.h100` writes the profiles.csv of each application. Nothing in them was measured on an H100. They
follow from a model with two parameters for each network:

- The **launch time**, in which the processor launches operators and the slice does not compute for this instance. It is
  `LAUNCH_US` for each operator, whatever the batch and the slice.
- The **compute time** of an item: its operations, over the rate of the slice's multiprocessors.

Several instances of a model in a slice overlap the launch time of one with the compute time of another, but share the
slice's multiprocessors. The model is a closed queueing network with one customer for each instance: launching is a
delay, and computing is a server that they share.

`fitted` estimates both parameters for the models of the A100 table (`benchmarks.a100`). The constants below are derived
from these estimates. They carry over to an H100 as follows: launching is the processor's work and takes as long; a
multiprocessor is faster by its share of the memory bandwidth, because most operators of these networks are limited by
memory.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.a100 import CONTEXT_MIB, ITEM_MIB, P95, P99, measured
from benchmarks.networks import NETWORKS, TABLE_GFLOPS, TABLE_OPERATORS, Family, Network
from jigsaw_triton.api.files import variant_templates
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.rates import request_rows
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.spec.load import load_graph

BOARD = "H100-80GB"
NAMES = ("social", "traffic", "ar")
"""Names of the applications, by depth."""

SLICES = ("1g", "2g", "3g", "4g", "7g")
"""Kinds of slices. 1gx2 is left out: it has a quarter of a GPU's memory and a fifth of its multiprocessors, but is only
one of seven compute slices, and the paper's formulation counts nothing else."""

INSTANCES = (1, 2, 3, 4)
"""Numbers of instances; the paper has at most four processes in a slice."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)

LAUNCH_US = 25.0
"""Time to launch an operator, in microseconds: the median over the models of the A100 table, which range from 16 to 40.
They ran in PyTorch without graphs or compilation."""

_V100_GB_S, _A100_GB_S, _H100_GB_S = 900 / 80, 2039 / 108, 3350 / 132
"""Memory bandwidth for each multiprocessor of the whole GPUs (V100-SXM2, A100-SXM4-80GB, H100-SXM5): data sheets."""

_FROM_A100, _FROM_V100 = _H100_GB_S / _A100_GB_S, _H100_GB_S / _V100_GB_S

GFLOPS_PER_SM: Mapping[Family, float] = {
    # Models of the A100 table: mobilenetv2; the median of three resnets; the mean of two vggs; bert.
    "depthwise": 38 * _FROM_A100,
    "residual": 350 * _FROM_A100,
    "plain": 600 * _FROM_A100,
    "transformer": 580 * _FROM_A100,
    # HiFi-GAN V1 on a V100 makes 167.9 seconds of speech a second (arXiv 2010.05646), each with 52.8 GFLOP.
    "vocoder": 167.9 * 52.8 / 80 * _FROM_V100,
}
"""Rate of a multiprocessor of an H100 by the family of the network."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Assumptions about speed, which a study may vary.

    Attributes:
        launch_us: Time to launch an operator, in microseconds.
        batches: Batch sizes that are profiled.
        slices: Kinds of slices that are profiled.
        instances: Numbers of instances that are profiled.
    """

    launch_us: float = LAUNCH_US
    batches: tuple[int, ...] = BATCHES
    slices: tuple[str, ...] = SLICES
    instances: tuple[int, ...] = INSTANCES


@dataclass(frozen=True, slots=True)
class Cost:
    """Time that a batch takes.

    Attributes:
        launch_s: Launch time of a batch, in seconds.
        item_s: Compute time of an item on one multiprocessor, in seconds.
    """

    launch_s: float
    item_s: float

    def batch_s(self, batch: int, instances: int, sm: int) -> float:
        """Returns the mean time of a batch while all instances are busy, by mean value analysis.

        Args:
            batch: Batch size.
            instances: Number of instances in the slice.
            sm: Number of multiprocessors of the slice.
        """
        compute_s = batch * self.item_s / sm
        computing_s, waiting = 0.0, 0.0
        for number in range(1, instances + 1):
            # An instance that arrives sees the others as they are on average without it.
            computing_s = compute_s * (1 + waiting)
            waiting = number * computing_s / (self.launch_s + computing_s)
        return self.launch_s + computing_s


def cost(network: Network, launch_us: float = LAUNCH_US) -> Cost:
    """Returns the time that a batch of a network takes on an H100."""
    return Cost(network.operators * launch_us * 1e-6, network.gflops / GFLOPS_PER_SM[network.family])


def application(name: str) -> TaskGraph:
    """Loads the graph of one of the applications."""
    return build_graph(load_graph(applications_dir() / name), templates=variant_templates())


def alone_ms(graph: TaskGraph, launch_us: float = LAUNCH_US) -> float:
    """Returns the 95th percentile of the best variants on the slowest path, each alone on a whole GPU.

    The rows that a request brings to a task are in one batch of the next power of two.
    """
    sm = board(BOARD).profiles["7g"].sm
    assert sm is not None
    taken_ms = {}
    for name, rows in request_rows(graph).items():
        best = max(graph.tasks[name].variants, key=lambda variant: variant.accuracy)
        batch = 2 ** math.ceil(math.log2(rows))
        taken_ms[name] = 1000 * P95 * cost(NETWORKS[best.name], launch_us).batch_s(batch, 1, sm)
    return max(sum(taken_ms[name] for name in path) for path in graph.paths())


def h100_table(graph: TaskGraph, assumptions: Assumptions = Assumptions()) -> ProfileTable:
    """Returns the profiles of a graph whose variants all have names of known networks. Rows fit their slices."""
    return ProfileTable(
        row
        for task in graph.tasks.values()
        for variant in task.variants
        for row in _rows(task.name, variant.name, assumptions)
    )


def _rows(task: str, variant: str, assumptions: Assumptions) -> Iterator[ProfileRow]:
    network = NETWORKS[variant]
    taken = cost(network, assumptions.launch_us)
    profiles = board(BOARD).profiles
    for slice_ in assumptions.slices:
        sm, room_mib = profiles[slice_].sm, profiles[slice_].memory_mib
        assert sm is not None and room_mib is not None
        for instances in assumptions.instances:
            for batch in assumptions.batches:
                memory_mib = instances * (CONTEXT_MIB + network.parameters_m * 4e6 / 2**20 + ITEM_MIB * batch)
                if memory_mib > room_mib:
                    continue
                batch_s = taken.batch_s(batch, instances, sm)
                yield ProfileRow(
                    ProfileKey(BOARD, task, variant, slice_, instances, batch),
                    latency_p50_ms=round(1000 * batch_s, 3),
                    latency_p95_ms=round(1000 * P95 * batch_s, 3),
                    latency_p99_ms=round(1000 * P99 * batch_s, 3),
                    throughput_rps=round(batch * instances / batch_s, 3),
                    memory_mib=round(memory_mib, 1),
                    source="assumed",
                )


@dataclass(frozen=True, slots=True)
class Fit:
    """Parameters of a model of the A100 table, and their error.

    Attributes:
        launch_us: Time to launch an operator, in microseconds.
        gflops_per_sm: Rate of a multiprocessor.
        errors: Relative errors of the batch times of all rows, with one and with several processes.
    """

    launch_us: float
    gflops_per_sm: float
    errors: Sequence[float]


_SM_PER_SLICE = 14
"""Multiprocessors of an A100 for each compute slice under MIG."""

_ROUNDS = 20


def fitted(model: str) -> Fit:
    """Fits the launch time and the compute time to a model's rows with one process, by least absolute relative error.

    Raises:
        InputError: The A100 table is missing.
    """
    rows = [row for row in measured() if row[0] == model]
    alone = np.array([(1 / s, batch / (_SM_PER_SLICE * gpcs) / s) for _, gpcs, batch, n, s in rows if n == 1])
    weights = np.ones(len(alone))
    for _ in range(_ROUNDS):
        # Weighted least squares with the inverse of the last errors as weights approaches least absolute errors.
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(alone * root[:, None], root, rcond=None)[0]
        weights = 1 / np.maximum(1e-3, np.abs(alone @ solution - 1))
    found = Cost(float(solution[0]), float(solution[1]))
    errors = [abs(found.batch_s(batch, n, _SM_PER_SLICE * gpcs) / s - 1) for _, gpcs, batch, n, s in rows]
    launch_us = 1e6 * found.launch_s / TABLE_OPERATORS[model]
    return Fit(launch_us, TABLE_GFLOPS[model] / found.item_s, errors)


def main() -> int:
    """Writes the profiles. Returns the exit code."""
    try:
        for name in NAMES:
            file = applications_dir() / name / "profiles.csv"
            file.write_text(write_profiles(h100_table(application(name)).rows()))
            print(f"wrote {file}", file=sys.stderr)
    except JigsawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
