"""Profiles of the reference graphs (`benchmarks/graphs`) on A100-80GB, from a public table of measurements.

`python -m benchmarks.a100` writes profiles.csv into the folder of each graph. The table has fp32 PyTorch models on the
MIG slices of an A100-80GB, by slice, batch and processes (MunQ-Lee/ParvaGPU_SC24, MIT licence). It is not part of this
repository, but is read from a folder beside the checkout. `benchmarks.assumed` supplies the values that it does not
have.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.assumed import assumed_row, graph_in, main, memory_mib, room_mib
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

BOARD = "A100-80GB"
TABLE = Path(__file__).parents[2] / "shared" / "data" / "a100_80gb_mig_profiles.csv"
GRAPHS = Path(__file__).parent / "graphs"
NAMES = ("social", "traffic", "assistant")
"""Names of the reference graphs, by depth."""

PARAMETERS_M: Mapping[str, float] = {
    "bert": 335.1,
    "densenet121": 8.0,
    "densenet169": 14.1,
    "densenet201": 20.0,
    "inceptionv3": 27.2,
    "mobilenetv2": 3.5,
    "resnet50": 25.6,
    "resnet101": 44.5,
    "resnet152": 60.2,
    "vgg16": 138.4,
    "vgg19": 143.7,
}
"""Parameters of the table's models, in millions: torchvision's table of weights; bert-large-uncased of transformers."""

# (model, compute slices, batch, processes) of rows that repeat another row, or that contradict all their neighbours.
_WRONG = {
    ("densenet121", 1, 8, 5),
    ("densenet169", 3, 128, 1),
    ("densenet169", 4, 128, 1),
    ("densenet169", 7, 128, 2),
    ("densenet201", 1, 8, 3),
    ("mobilenetv2", 4, 64, 4),
    ("mobilenetv2", 4, 128, 3),
    ("mobilenetv2", 4, 256, 2),
    ("resnet50", 2, 32, 4),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A row of the table.

    Attributes:
        model: Name of the model.
        compute_slices: Compute slices of the MIG instance.
        batch: Batch size.
        processes: Number of processes in the slice.
        latency_s: Latency of a batch in seconds, with a resolution of 1 ms.
        throughput_rps: Items a second of all processes together.
    """

    model: str
    compute_slices: int
    batch: int
    processes: int
    latency_s: float
    throughput_rps: float

    @property
    def batch_s(self) -> float:
        """Median time of a batch in seconds.

        It is the latency or batch x processes / throughput, whichever is longer. The table was measured without waiting
        for the device, so its short times are too short by up to a millisecond.
        """
        return max(self.latency_s, self.batch * self.processes / self.throughput_rps)


def a100_profiles(task: str, models: Sequence[str]) -> list[ProfileRow]:
    """Returns the profiles of a task whose variants have the names of the table's models.

    The median time of a batch is `Measurement.batch_s`, from which the throughput follows. Processes of the table
    become Triton instances.

    Args:
        task: Name of the task.
        models: Names of models in `PARAMETERS_M`.

    Raises:
        InputError: The table is missing.
    """
    return [_row(task, found) for found in measured() if found.model in models]


def a100_table(graph: TaskGraph) -> ProfileTable:
    """Returns the profiles of a graph whose variants all have names of the table's models.

    Raises:
        InputError: The table is missing.
    """
    return ProfileTable(
        row for task in graph.tasks.values() for row in a100_profiles(task.name, [v.name for v in task.variants])
    )


def reference_graph(name: str) -> TaskGraph:
    """Loads one of the reference graphs."""
    return graph_in(GRAPHS / name)


def is_wrong(key: ProfileKey) -> bool:
    """Returns True if the row of a configuration repeats another row of the table, or contradicts all its neighbours.

    Args:
        key: Configuration, whose variant has the name of the table's model.
    """
    return (key.variant, int(key.slice[:-1]), key.batch, key.instances) in _WRONG


@cache
def measured() -> list[Measurement]:
    """Reads the table, without the rows in `_WRONG`.

    Raises:
        InputError: The table is missing.
    """
    if not TABLE.exists():
        raise InputError("the table of measurements is missing", where=str(TABLE), hint="put it beside the checkout")
    with TABLE.open(newline="") as file:
        return list(_read(csv.DictReader(file)))


def _read(rows: Iterable[Mapping[str, str]]) -> Iterator[Measurement]:
    for row in rows:
        key = (row["model"], int(row["mig_gpcs"]), int(row["batch"]), int(row["mps_procs"]))
        if key not in _WRONG:
            yield Measurement(*key, float(row["latency_s"]), float(row["throughput_total_rps"]))


def _row(task: str, found: Measurement) -> ProfileRow:
    key = ProfileKey(BOARD, task, found.model, f"{found.compute_slices}g", found.processes, found.batch)
    # The configuration ran, so its memory fitted the slice.
    return assumed_row(key, found.batch_s, min(memory_mib(key, PARAMETERS_M[found.model]), room_mib(key)))


if __name__ == "__main__":
    sys.exit(main((GRAPHS / name for name in NAMES), a100_table))
