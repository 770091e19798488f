"""Profiles of the reference graphs (`benchmarks/graphs`) on A100-80GB, from a public table of measurements.

`python -m benchmarks.a100` writes profiles.csv into the folder of each graph. The table has fp32 PyTorch models on the
MIG slices of an A100-80GB, by slice, batch and processes (MunQ-Lee/ParvaGPU_SC24, MIT licence). It is not part of this
repository, but is read from a folder beside the checkout. The rules and constants of this module supply the values that
the table does not have.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jigsaw_triton.api.files import variant_templates
from jigsaw_triton.errors import InputError, JigsawError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.spec.load import load_graph

BOARD = "A100-80GB"
TABLE = Path(__file__).parents[2] / "shared" / "data" / "a100_80gb_mig_profiles.csv"
GRAPHS = Path(__file__).parent / "graphs"
NAMES = ("social", "traffic", "assistant")
"""Names of the reference graphs, by depth."""

P95, P99 = 1.1, 1.2
"""Assumed percentiles, as multiples of the median. The table has one latency, which is taken for the median."""

CONTEXT_MIB, ITEM_MIB = 500.0, 20.0
"""Assumed memory of a process, and of an item in a batch. The table has no memory."""

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
"""Parameters of the table's models, in millions; each takes four bytes."""

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


def a100_profiles(task: str, models: Sequence[str]) -> list[ProfileRow]:
    """Returns the profiles of a task whose variants have the names of the table's models.

    The median time of a batch is `latency_s` or batch x processes / total throughput, whichever is longer. The table
    was measured without waiting for the device, so its short times are too short by up to a millisecond. The throughput
    follows from the median. Processes of the table become Triton instances.

    Args:
        task: Name of the task.
        models: Names of models in `PARAMETERS_M`.

    Raises:
        InputError: The table is missing.
    """
    return [_row(task, *found) for found in measured() if found[0] in models]


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
    return build_graph(load_graph(GRAPHS / name), templates=variant_templates())


def is_wrong(key: ProfileKey) -> bool:
    """Returns true if the row of a configuration repeats another row of the table, or contradicts all its neighbours.

    Args:
        key: Configuration, whose variant has the name of the table's model.
    """
    return (key.variant, int(key.slice[:-1]), key.batch, key.instances) in _WRONG


@cache
def measured() -> list[tuple[str, int, int, int, float]]:
    """Reads (model, compute slices, batch, processes, seconds per batch) of each row, without the rows in `_WRONG`."""
    if not TABLE.exists():
        raise InputError("the table of measurements is missing", where=str(TABLE), hint="put it beside the checkout")
    with TABLE.open(newline="") as file:
        return list(_read(csv.DictReader(file)))


def _read(rows: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, int, int, int, float]]:
    for row in rows:
        key = (row["model"], int(row["mig_gpcs"]), int(row["batch"]), int(row["mps_procs"]))
        if key not in _WRONG:
            yield *key, max(float(row["latency_s"]), key[2] * key[3] / float(row["throughput_total_rps"]))


def _row(task: str, model: str, compute_slices: int, batch: int, processes: int, batch_s: float) -> ProfileRow:
    slice_ = f"{compute_slices}g"
    room_mib = board(BOARD).profiles[slice_].memory_mib or 0
    weights_mib = PARAMETERS_M[model] * 4e6 / 2**20
    memory_mib = processes * (CONTEXT_MIB + weights_mib + ITEM_MIB * batch)
    p50_ms = 1000 * batch_s
    return ProfileRow(
        ProfileKey(BOARD, task, model, slice_, processes, batch),
        latency_p50_ms=round(p50_ms, 3),
        latency_p95_ms=round(P95 * p50_ms, 3),
        latency_p99_ms=round(P99 * p50_ms, 3),
        throughput_rps=round(batch * processes / batch_s, 3),
        # It ran, so it fitted the slice.
        memory_mib=round(min(memory_mib, room_mib), 1),
        source="assumed",
    )


def main() -> int:
    """Writes the profiles. Returns the exit code."""
    try:
        for name in NAMES:
            file = GRAPHS / name / "profiles.csv"
            file.write_text(write_profiles(a100_table(reference_graph(name)).rows()))
            print(f"wrote {file}", file=sys.stderr)
    except JigsawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
