"""Common parts of assumed profiles: percentiles and memory that no source has, and the command that writes files."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jigsaw_triton.api.files import variant_templates
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.spec.load import load_graph

P95, P99 = 1.1, 1.2
"""Assumed percentiles, as multiples of the median."""

CONTEXT_MIB, ITEM_MIB = 500.0, 20.0
"""Assumed memory of a process, and of an item in a batch."""

PARAMETER_BYTES = 4
"""Bytes of a parameter: 32-bit floats."""


def memory_mib(key: ProfileKey, parameters_m: float) -> float:
    """Returns the memory of all instances of a model together.

    Args:
        key: Configuration.
        parameters_m: Parameters of the model, in millions.
    """
    weights_mib = parameters_m * PARAMETER_BYTES * 1e6 / 2**20
    return key.instances * (CONTEXT_MIB + weights_mib + ITEM_MIB * key.batch)


def room_mib(key: ProfileKey) -> float:
    """Returns the memory of the configuration's slice."""
    return board(key.gpu).profiles[key.slice].memory_mib or 0


def assumed_row(key: ProfileKey, batch_s: float, memory_mib: float) -> ProfileRow:
    """Returns the profile of a configuration.

    Args:
        key: Configuration.
        batch_s: Median time of a batch in seconds, which also gives the throughput.
        memory_mib: Memory of all instances together.
    """
    p50_ms = 1000 * batch_s
    return ProfileRow(
        key,
        latency_p50_ms=round(p50_ms, 3),
        latency_p95_ms=round(P95 * p50_ms, 3),
        latency_p99_ms=round(P99 * p50_ms, 3),
        throughput_rps=round(key.batch * key.instances / batch_s, 3),
        memory_mib=round(memory_mib, 1),
        source="assumed",
    )


def graph_in(folder: Path) -> TaskGraph:
    """Loads the graph in a folder."""
    return build_graph(load_graph(folder), templates=variant_templates())


def main(folders: Iterable[Path], table: Callable[[TaskGraph], ProfileTable]) -> int:
    """Writes profiles.csv into the folder of each graph. Returns the exit code.

    Args:
        folders: Folders of graphs.
        table: Function that returns the profiles of a graph.
    """
    try:
        for folder in folders:
            file = folder / "profiles.csv"
            file.write_text(write_profiles(table(graph_in(folder)).rows()))
            print(f"wrote {file}", file=sys.stderr)
    except JigsawError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
