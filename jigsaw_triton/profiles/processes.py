"""Finds rows whose instances are of another kind than those of a cluster: streams of one server, or MPS processes."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from jigsaw_triton.errors import Diagnostic
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import Processes, ProfileKey, ProfileRow, ProfileTable

WORDS: Mapping[Processes, str] = {"streams": "instances of one tritonserver", "mps": "processes under MPS"}
"""Kind of instances -> its description."""


def kinds(rows: Iterable[ProfileRow]) -> dict[Processes, int]:
    """Returns the numbers of rows with several instances by their kind, as far as rows say it; the most frequent first.

    A cluster has instances of one kind.
    """
    counts = Counter(row.processes for row in rows if row.key.instances > 1 and row.processes is not None)
    return dict(counts.most_common())


def of_other_kind(
    graph: TaskGraph, table: ProfileTable, boards: Collection[str], processes: Processes
) -> list[ProfileRow]:
    """Returns the rows that a plan would use, but that do not hold for a cluster with these processes.

    Args:
        graph: Graph of the table.
        table: The profiles.
        boards: Names of the GPU models of the cluster.
        processes: Kind of the cluster's instances.
    """
    variants = {(task.name, variant.name) for task in graph.tasks.values() for variant in task.variants}
    return [
        row
        for row in table.rows()
        if not row.holds_for(processes) and row.key.gpu in boards and (row.key.task, row.key.variant) in variants
    ]


def refusal(
    rows: Collection[ProfileRow], processes: Processes, file: str, lines: Mapping[ProfileKey, int]
) -> Diagnostic:
    """Returns the mistake that a file has such rows.

    Args:
        rows: Rows from `of_other_kind`, at least one.
        processes: Kind of the cluster's instances.
        file: Name of the file.
        lines: Lines of its rows; none if the table is not from a file.
    """
    first = min(rows, key=lambda row: lines.get(row.key, 0))
    others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    measured = first.processes or processes
    return Diagnostic(
        file,
        lines.get(first.key, 0),
        f"{first.key.instances} instances of {first.key.task}.{first.key.variant}{others} were measured as "
        f"{WORDS[measured]}, but the cluster serves {WORDS[processes]}",
        f"write `processes: {measured}` in cluster.yaml, or measure on such a cluster with `jigsaw-triton profile`",
    )
