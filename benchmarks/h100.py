"""Assumed profiles of the applications `social`, `traffic` and `ar` on the MIG slices of an H100-80GB.

`python -m benchmarks.h100` writes the profiles.csv of each application. Nothing in them was measured on an H100. They
follow from a model with two parameters for each network:

- The **launch time**, in which the processor launches operators and the slice does not compute for this instance. It is
  `LAUNCH_US` for each operator, whatever the batch and the slice.
- The **compute time** of an item: its operations, over the rate of the slice's multiprocessors.

`jigsaw_triton.evaluation.launching` has the model, also for several instances in a slice.

`fitted` estimates both parameters for the models of the A100 table (`benchmarks.a100`). The constants below are derived
from these estimates. They carry over to an H100 as follows: launching is the processor's work and takes as long; a
multiprocessor is faster by its share of the memory bandwidth, because most operators of these networks are limited by
memory.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.a100 import Measurement, measured
from benchmarks.assumed import P95, assumed_row, graph_in, main, memory_mib, room_mib
from benchmarks.networks import NETWORKS, TABLE_GFLOPS, TABLE_OPERATORS, Family, Network
from jigsaw_triton.evaluation.launching import Cost
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.rates import request_rows
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.resources import applications_dir

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
    """

    launch_us: float = LAUNCH_US
    batches: tuple[int, ...] = BATCHES


def cost(network: Network, launch_us: float = LAUNCH_US) -> Cost:
    """Returns the time that a batch of a network takes on an H100."""
    return Cost(network.operators * launch_us * 1e-6, network.gflops / GFLOPS_PER_SM[network.family])


def application(name: str) -> TaskGraph:
    """Loads the graph of one of the applications."""
    return graph_in(applications_dir() / name)


def alone_ms(graph: TaskGraph, launch_us: float = LAUNCH_US) -> float:
    """Returns the 95th percentile of the best variants on the slowest path, each alone on a whole GPU."""
    best = {name: max(task.variants, key=lambda variant: variant.accuracy) for name, task in graph.tasks.items()}
    return slowest_path_ms(graph, {name: cost(NETWORKS[v.name], launch_us) for name, v in best.items()})


def slowest_path_ms(graph: TaskGraph, costs: Mapping[str, Cost]) -> float:
    """Returns the 95th percentile on the slowest path of tasks with these costs, each alone on a whole GPU.

    The rows that a request brings to a task are in one batch of the next power of two.
    """
    sm = board(BOARD).profiles["7g"].sm
    assert sm is not None
    rows = request_rows(graph)
    taken_ms = {
        name: 1000 * P95 * taken.batch_s(2 ** math.ceil(math.log2(rows[name])), 1, sm) for name, taken in costs.items()
    }
    return max(longest_through(graph, taken_ms).values())


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
    yield from cost_rows(task, variant, taken, network.parameters_m, assumptions.batches)


def cost_rows(
    task: str, variant: str, taken: Cost, parameters_m: float, batches: Sequence[int] = BATCHES
) -> Iterator[ProfileRow]:
    """Yields the profiles of a variant in the slices that it fits.

    Args:
        task: Name of the task.
        variant: Name of the variant.
        taken: Time that a batch takes.
        parameters_m: Parameters of the network, in millions.
        batches: Batch sizes.
    """
    for slice_ in SLICES:
        sm = board(BOARD).profiles[slice_].sm
        assert sm is not None
        for instances in INSTANCES:
            for batch in batches:
                key = ProfileKey(BOARD, task, variant, slice_, instances, batch)
                taken_mib = memory_mib(key, parameters_m)
                if taken_mib <= room_mib(key):
                    yield assumed_row(key, taken.batch_s(batch, instances, sm), taken_mib)


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


def fitted(model: str) -> Fit:
    """Fits the launch time and the compute time to a model's rows with one process, by least absolute relative error.

    Raises:
        InputError: The A100 table is missing.
    """
    rows = [row for row in measured() if row.model == model]
    found = Cost.fitted([(r.batch / _sm(r), r.batch_s) for r in rows if r.processes == 1])
    errors = [abs(found.batch_s(r.batch, r.processes, _sm(r)) / r.batch_s - 1) for r in rows]
    launch_us = 1e6 * found.launch_s / TABLE_OPERATORS[model]
    return Fit(launch_us, TABLE_GFLOPS[model] / found.item_s, errors)


def _sm(row: Measurement) -> int:
    return _SM_PER_SLICE * row.compute_slices


if __name__ == "__main__":
    sys.exit(main((applications_dir() / name for name in NAMES), h100_table))
