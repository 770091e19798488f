"""profiles.csv: reading it strictly, writing it, and saying what it lacks."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, get_args

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.words import NAME_PATTERN, nearest, shown

Source = Literal["measured", "fitted", "assumed"]

HEADER = (
    "gpu",
    "task",
    "variant",
    "slice",
    "instances",
    "batch",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "throughput_rps",
    "memory_mib",
    "source",
)
SLICES = ("1g", "1gx2", "2g", "3g", "4g", "7g")
"""As `gpus.model.SLICES`, which this part does not import."""

LIMIT_BYTES = 16 * 1024 * 1024
LIMIT_PROBLEMS = 50
"""Mistakes shown of one file; a column that is wrong is wrong in each row."""

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_BOARD = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
LIMIT_COUNT = 999_999
"""Instances, or items in a batch."""

_COUNT = re.compile(r"[1-9][0-9]{0,5}")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_MEASURE = "`jigsaw-triton profile GRAPH` writes this file"


def read_profiles(path: Path | str) -> ProfileTable:
    """Reads a profiles.csv, or that of a folder.

    Raises:
        SpecError: It cannot be read, or rows of it are wrong: the first `LIMIT_PROBLEMS`, and how many more.
    """
    path = Path(path)
    file = path / "profiles.csv" if path.is_dir() else path
    return parse_profiles(load_text(file, limit_bytes=LIMIT_BYTES), str(file))


def parse_profiles(text: str, file: str) -> ProfileTable:
    """The table that the text of a profiles.csv holds.

    Args:
        text: Of the file.
        file: For messages.

    Raises:
        SpecError: As for `read_profiles`.
    """
    problems: list[Diagnostic] = []
    rows: dict[ProfileKey, ProfileRow] = {}
    lines: dict[ProfileKey, int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_header(next(reader, []), file)
        for cells in reader:
            reasons, row = _row(cells)
            if row is not None and row.key in rows:
                reasons = [("this configuration is repeated", f"the first is on line {lines[row.key]}")]
            elif row is not None:
                rows[row.key] = row
                lines[row.key] = reader.line_num
            problems += [Diagnostic(file, reader.line_num, message, hint) for message, hint in reasons]
    except csv.Error as error:
        problems.append(Diagnostic(file, reader.line_num, f"this is not CSV: {error}", "check quotes and line ends"))
    if problems:
        more = len(problems) - LIMIT_PROBLEMS
        rest = [Diagnostic(file, 0, f"{more} more mistakes of such kinds")] if more > 0 else []
        raise SpecError([*problems[:LIMIT_PROBLEMS], *rest])
    return ProfileTable(rows.values())


def _check_header(cells: list[str], file: str) -> None:
    if tuple(cells) == HEADER:
        return
    if not cells:
        raise SpecError([Diagnostic(file, 1, "the header is missing", f"the first line must be {','.join(HEADER)}")])
    lacking = [name for name in HEADER if name not in cells]
    unknown = [name for name in cells if name not in HEADER]
    parts = [f"lacks {', '.join(lacking)}"] if lacking else []
    parts += [f"has {', '.join(shown(name) for name in unknown)}"] if unknown else []
    message = f"the header {' and '.join(parts) or 'has its columns in another order or twice'}"
    raise SpecError([Diagnostic(file, 1, message, f"the first line must be {','.join(HEADER)}")])


def _row(cells: list[str]) -> tuple[list[tuple[str, str]], ProfileRow | None]:
    """What is wrong with a row (message and hint), and the row where nothing is."""
    if not cells:
        return [("the line is empty", "remove it")], None
    if len(cells) != len(HEADER):
        return [(f"the row has {len(cells)} cells, not {len(HEADER)}", _MEASURE)], None
    row = dict(zip(HEADER, cells, strict=True))
    reasons = [*_check_words(row), *_check_numbers(row)]
    if reasons:
        return reasons, None
    key = ProfileKey(row["gpu"], row["task"], row["variant"], row["slice"], int(row["instances"]), int(row["batch"]))
    p50, p95, p99, throughput, memory = (float(row[column]) for column in HEADER[6:11])
    if not p50 <= p95 <= p99:
        found = f"p50 {row['latency_p50_ms']}, p95 {row['latency_p95_ms']}, p99 {row['latency_p99_ms']} ms"
        return [(f"the latencies fall: {found}", "they must be p50 <= p95 <= p99")], None
    return [], ProfileRow(key, p50, p95, p99, throughput, memory, _source(row["source"]))


def _check_words(row: dict[str, str]) -> list[tuple[str, str]]:
    reasons = []
    if _BOARD.fullmatch(row["gpu"]) is None:
        reasons.append((f"gpu is {shown(row['gpu'])}", "write a model of the catalog, such as A100-80GB"))
    for column in ("task", "variant"):
        if _NAME.fullmatch(row[column]) is None:
            reasons.append((f"{column} is {shown(row[column])}", f"write the name of a {column} of the graph"))
    if row["slice"] not in SLICES:
        reasons.append((f"there is no slice {shown(row['slice'])}", nearest(row["slice"], SLICES, "known slices")))
    if row["source"] not in get_args(Source):
        hint = nearest(row["source"], get_args(Source), "known sources")
        reasons.append((f"source is {shown(row['source'])}", hint))
    return reasons


def _check_numbers(row: dict[str, str]) -> list[tuple[str, str]]:
    reasons = []
    for column in ("instances", "batch"):
        if _COUNT.fullmatch(row[column]) is None:
            reasons.append((f"{column} is {shown(row[column])}", f"write a whole number from 1 to {LIMIT_COUNT}"))
    for column in HEADER[6:11]:
        value = float(row[column]) if _NUMBER.fullmatch(row[column]) else math.nan
        least = "at least 0" if column == "memory_mib" else "greater than 0"
        if not (math.isfinite(value) and (value > 0 or (value == 0 and column == "memory_mib"))):
            reasons.append((f"{column} is {shown(row[column])}", f"write a finite number {least}"))
    return reasons


def _source(text: str) -> Source:
    return next(known for known in get_args(Source) if known == text)


def write_profiles(rows: Iterable[ProfileRow]) -> str:
    """The text of a profiles.csv, rows sorted by configuration; `parse_profiles` reads back the same rows.

    Args:
        rows: Of distinct configurations.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for row in sorted(rows, key=lambda r: r.key):
        key = row.key
        figures = (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms, row.throughput_rps, row.memory_mib)
        writer.writerow(
            [key.gpu, key.task, key.variant, key.slice, key.instances, key.batch, *map(repr, figures), row.source]
        )
    return out.getvalue()


def missing(graph: TaskGraph, table: ProfileTable, boards: Collection[str]) -> tuple[str, ...]:
    """What must be measured before a graph's variants can all be planned on these boards.

    Args:
        graph: Whose variants they are.
        table: What is known.
        boards: Names of the boards of the cluster.

    Returns:
        A sentence a variant, with the command that measures it, in the graph's order.
    """
    found = []
    for task in graph.tasks.values():
        for variant in task.variants:
            known = {row.key.gpu for row in table.rows(task=task.name, variant=variant.name)}
            lacking = sorted(set(boards) - known)
            if lacking:
                command = f"jigsaw-triton profile {graph.folder} --task {task.name} --variant {variant.name}"
                where = ", ".join(lacking)
                found.append(
                    f"variant '{variant.name}' of {task.name} has no profile on {where}; `{command}` measures it"
                )
    return tuple(found)
