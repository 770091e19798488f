"""Profiles of the reference graphs (`benchmarks/graphs`) on A100-80GB, from a public table of measurements.

`python -m benchmarks.a100` writes profiles.csv beside each of them. The table (fp32 PyTorch models on the MIG slices of
an A100-80GB, by slice, batch and processes; MunQ-Lee/ParvaGPU_SC24, MIT licence) is no part of this repository: it is
read from a folder beside the checkout. What it does not say is assumed, by the rules and constants of this module.
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
"""Of the reference graphs, by depth."""

P95, P99 = 1.1, 1.2
"""Of the median, which the table's latency is taken for: assumed, it has no percentiles."""

CONTEXT_MIB, ITEM_MIB = 500.0, 20.0
"""Of a process, and of an item in a batch: assumed, the table has no memory."""

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
"""Of the table's models, in millions, four bytes each."""

# (model, compute slices, batch, processes): rows that repeat another, or are out of line with all their neighbours.
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
    """Profiles of a task whose variants are models of the table, by their names there.

    A batch takes `latency_s` or batch x processes / total throughput, whichever is longer: the table was measured
    without waiting for the device, so that short times come out too short by up to a millisecond. That is the median,
    from which the throughput follows. Processes are Triton instances.

    Args:
        task: Name of the task.
        models: Of `PARAMETERS_M`.

    Raises:
        InputError: The table is not there.
    """
    return [_row(task, *found) for found in _measured() if found[0] in models]


def a100_table(graph: TaskGraph) -> ProfileTable:
    """Profiles of a graph whose variants all have names of the table's models.

    Raises:
        InputError: The table is not there.
    """
    return ProfileTable(
        row for task in graph.tasks.values() for row in a100_profiles(task.name, [v.name for v in task.variants])
    )


def reference_graph(name: str) -> TaskGraph:
    """One of the reference graphs."""
    return build_graph(load_graph(GRAPHS / name), templates=variant_templates())


@cache
def _measured() -> list[tuple[str, int, int, int, float]]:
    """(model, compute slices, batch, processes, seconds a batch), what is known to be wrong left out."""
    if not TABLE.exists():
        raise InputError("the table of measurements is not there", where=str(TABLE), hint="put it beside the checkout")
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
        # It ran, so it had room.
        memory_mib=round(min(memory_mib, room_mib), 1),
        source="assumed",
    )


def main() -> int:
    """Writes the profiles; the exit code."""
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
