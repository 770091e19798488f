"""Reads and writes profiles.csv, and reports missing profiles."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import Processes, ProfileKey, ProfileRow, ProfileTable, Source
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.words import NAME_PATTERN, nearest, shown

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
OPTIONAL = ("origin", "error", "processes", "model", "processor_ms")
"""Columns that a file has only if a row needs them. Earlier releases refuse such a file, naming the columns."""

FIGURES = HEADER[6:11]
"""Columns of the figures."""

SLICES = ("1g", "1gx2", "2g", "3g", "4g", "7g")
"""Kinds of slices: a copy of `gpus.model.SLICES`, which this package must not import."""

LIMIT_BYTES = 16 * 1024 * 1024
LIMIT_PROBLEMS = 50
"""Largest number of mistakes that are reported of one file: a wrong column causes a mistake in every row."""

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_BOARD = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
LIMIT_COUNT = 999_999
"""Largest number of instances, and of items in a batch."""

LIMIT_ORIGIN = 200
"""Largest number of characters of an origin."""

_DIGEST = re.compile(r"[0-9a-f]{12}")
_COUNT = re.compile(r"[1-9][0-9]{0,5}")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_MEASURE = "`jigsaw-triton profile GRAPH` writes this file"


def read_profiles(path: Path | str) -> ProfileTable:
    """Reads a profiles.csv, or the profiles.csv in a folder.

    Raises:
        SpecError: The file cannot be read or has mistakes. The error has the first `LIMIT_PROBLEMS` of them and the
            number of the others.
    """
    return read_with_lines(path)[0]


def read_with_lines(path: Path | str) -> tuple[ProfileTable, Mapping[ProfileKey, int]]:
    """Reads a profiles.csv like `read_profiles`, and returns also the line of each row."""
    path = Path(path)
    file = path / "profiles.csv" if path.is_dir() else path
    return parse_with_lines(load_text(file, limit_bytes=LIMIT_BYTES), str(file))


def parse_profiles(text: str, file: str) -> ProfileTable:
    """Parses the text of a profiles.csv.

    Args:
        text: Text of the file.
        file: Name of the file, for messages.

    Raises:
        SpecError: The text has mistakes. The error has the first `LIMIT_PROBLEMS` of them and the number of the others.
    """
    return parse_with_lines(text, file)[0]


def parse_with_lines(text: str, file: str) -> tuple[ProfileTable, Mapping[ProfileKey, int]]:
    """Parses the text of a profiles.csv like `parse_profiles`, and returns also the line of each row."""
    problems: list[Diagnostic] = []
    rows: dict[ProfileKey, ProfileRow] = {}
    lines: dict[ProfileKey, int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(reader, []), file)
        for cells in reader:
            reasons, row = _row(cells, columns)
            if row is not None and row.key in rows:
                reasons = [
                    ("duplicate configuration", f"remove one of the rows; the first is on line {lines[row.key]}")
                ]
            elif row is not None:
                rows[row.key] = row
                lines[row.key] = reader.line_num
            problems += [Diagnostic(file, reader.line_num, message, hint) for message, hint in reasons]
    except csv.Error as error:
        message = f"this is not valid CSV: {error}"
        problems.append(Diagnostic(file, reader.line_num, message, "check quotes and line ends"))
    raise_all(problems, file)
    return ProfileTable(rows.values()), lines


def raise_all(problems: Sequence[Diagnostic], file: str) -> None:
    """Raises the mistakes in a file, if there are any.

    Raises:
        SpecError: There are mistakes. The error has the first `LIMIT_PROBLEMS` of them and the number of the others.
    """
    if problems:
        more = len(problems) - LIMIT_PROBLEMS
        rest = [Diagnostic(file, 0, f"{more} more mistakes are not shown")] if more > 0 else []
        raise SpecError([*problems[:LIMIT_PROBLEMS], *rest])


def _columns(cells: list[str], file: str) -> tuple[str, ...]:
    """Returns the columns of a file.

    Raises:
        SpecError: The header is wrong.
    """
    more = cells[len(HEADER) :]
    if tuple(cells[: len(HEADER)]) == HEADER and set(more) <= set(OPTIONAL) and len(set(more)) == len(more):
        return tuple(cells)
    if not cells:
        raise SpecError([Diagnostic(file, 1, "the header is missing", f"the first line must be {','.join(HEADER)}")])
    lacking = [name for name in HEADER if name not in cells]
    unknown = [name for name in cells if name not in HEADER + OPTIONAL]
    parts = [f"lacks {', '.join(lacking)}"] if lacking else []
    parts += [f"has unknown columns {', '.join(shown(name) for name in unknown)}"] if unknown else []
    message = f"the header {' and '.join(parts) or 'has its columns in the wrong order or twice'}"
    hint = f"the first line must be {','.join(HEADER)}, and may go on with any of {', '.join(OPTIONAL)}"
    raise SpecError([Diagnostic(file, 1, message, hint)])


def _row(cells: list[str], columns: tuple[str, ...]) -> tuple[list[tuple[str, str]], ProfileRow | None]:
    """Parses a row.

    Returns:
        The mistakes in the row, each a message and a hint, and the row itself, or None if it has mistakes.
    """
    if not cells:
        return [("the line is empty", "remove it")], None
    if len(cells) != len(columns):
        return [(f"the row must have {len(columns)} cells, not {len(cells)}", _MEASURE)], None
    row = dict(zip(columns, cells, strict=True))
    reasons = [*_check_words(row), *_check_numbers(row)]
    if reasons:
        return reasons, None
    key = ProfileKey(row["gpu"], row["task"], row["variant"], row["slice"], int(row["instances"]), int(row["batch"]))
    p50, p95, p99, throughput, memory = (float(row[column]) for column in FIGURES)
    if not p50 <= p95 <= p99:
        found = f"p50 {row['latency_p50_ms']}, p95 {row['latency_p95_ms']}, p99 {row['latency_p99_ms']} ms"
        return [(f"the latencies are not ascending: {found}", "they must satisfy p50 <= p95 <= p99")], None
    error = float(row["error"]) if row.get("error") else None
    origin, processes, model = (row.get(column, "") for column in ("origin", "processes", "model"))
    processor_ms = float(row["processor_ms"]) if row.get("processor_ms") else None
    figures, source = (p50, p95, p99, throughput, memory), _source(row["source"])
    return [], ProfileRow(key, *figures, source, origin, error, _processes(processes), model, processor_ms)


def _check_words(row: dict[str, str]) -> list[tuple[str, str]]:
    reasons = []
    if _BOARD.fullmatch(row["gpu"]) is None:
        reasons.append((f"gpu is {shown(row['gpu'])}", "write a GPU model of the catalog, such as A100-80GB"))
    for column in ("task", "variant"):
        if not is_name(row[column]):
            reasons.append((f"{column} is {shown(row[column])}", f"write the name of a {column} of the graph"))
    if row["slice"] not in SLICES:
        reasons.append((f"there is no slice {shown(row['slice'])}", nearest(row["slice"], SLICES, "known slices")))
    if row["source"] not in get_args(Source):
        hint = nearest(row["source"], get_args(Source), "known sources")
        reasons.append((f"source is {shown(row['source'])}", hint))
    if not is_origin(row.get("origin", "")):
        reasons.append((f"origin is {shown(row['origin'])}", f"write up to {LIMIT_ORIGIN} printable characters"))
    if row.get("processes") and row["processes"] not in get_args(Processes):
        reasons.append((f"processes is {shown(row['processes'])}", "write streams, mps or nothing"))
    if row.get("model") and _DIGEST.fullmatch(row["model"]) is None:
        hint = "leave it empty: `jigsaw-triton profile` writes the digest of what it measures"
        reasons.append((f"model is {shown(row['model'])}", hint))
    return reasons


def is_name(text: str) -> bool:
    """Returns True if a text can be the name of a task or a variant."""
    return _NAME.fullmatch(text) is not None


def is_origin(text: str) -> bool:
    """Returns True if a text can be the origin of a row."""
    return len(text) <= LIMIT_ORIGIN and text.isprintable()


def _check_numbers(row: dict[str, str]) -> list[tuple[str, str]]:
    reasons = []
    for column in ("instances", "batch"):
        if _COUNT.fullmatch(row[column]) is None:
            reasons.append((f"{column} is {shown(row[column])}", f"write a whole number from 1 to {LIMIT_COUNT}"))
    for column in FIGURES:
        value = float(row[column]) if _NUMBER.fullmatch(row[column]) else math.nan
        bound = "of at least 0" if column == "memory_mib" else "greater than 0"
        if not (math.isfinite(value) and (value > 0 or (value == 0 and column == "memory_mib"))):
            reasons.append((f"{column} is {shown(row[column])}", f"write a finite number {bound}"))
    error = row.get("error", "")
    if error and not (_NUMBER.fullmatch(error) and math.isfinite(float(error))):
        reasons.append((f"error is {shown(error)}", "write a relative error such as 0.03, or nothing"))
    processor = row.get("processor_ms", "")
    if processor and not (_NUMBER.fullmatch(processor) and 0 < float(processor) < math.inf):
        reasons.append((f"processor_ms is {shown(processor)}", "write milliseconds greater than 0, or nothing"))
    return reasons


def _source(text: str) -> Source:
    return next(known for known in get_args(Source) if known == text)


def _processes(text: str) -> Processes | None:
    return next((known for known in get_args(Processes) if known == text), None)


def write_profiles(rows: Iterable[ProfileRow]) -> str:
    """Returns the text of a profiles.csv, from which `parse_profiles` reads the same rows.

    Args:
        rows: Rows of distinct configurations. They are written sorted by configuration. Optional columns that
            would be empty are left out.
    """
    rows = sorted(rows, key=lambda r: r.key)
    texts = [_optional_texts(row) for row in rows]
    more = [column for column in OPTIONAL if any(text[column] for text in texts)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*HEADER, *more])
    for row, text in zip(rows, texts, strict=True):
        key = row.key
        figures = (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms, row.throughput_rps, row.memory_mib)
        cells = [key.gpu, key.task, key.variant, key.slice, key.instances, key.batch, *map(repr, figures), row.source]
        writer.writerow([*cells, *(text[column] for column in more)])
    return out.getvalue()


def _optional_texts(row: ProfileRow) -> dict[str, str]:
    error = "" if row.error is None else repr(row.error)
    processor = "" if row.processor_ms is None else repr(row.processor_ms)
    return {
        "origin": row.origin,
        "error": error,
        "processes": row.processes or "",
        "model": row.model,
        "processor_ms": processor,
    }


def missing(graph: TaskGraph, table: ProfileTable, boards: Collection[str]) -> tuple[str, ...]:
    """Returns a message for each variant that cannot be planned on all boards because it has no profile.

    Args:
        graph: Graph whose variants are checked.
        table: Profiles of the graph.
        boards: Names of the GPU models of the cluster.

    Returns:
        Messages in the order of the graph, each with the command that measures the variant.
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
                    f"variant '{variant.name}' of {task.name} has no profile on {where}; run `{command}` to measure it"
                )
    return tuple(found)
