"""Checks a table of profiles for figures that contradict each other, the graph or the GPU models."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.fit import LatencyFit
from jigsaw_triton.profiles.latency_model import SHARES
from jigsaw_triton.profiles.processes import kinds
from jigsaw_triton.profiles.read import missing
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.spec.words import nearest

Severity = Literal["error", "warning"]

MOST_THROUGHPUT = 1.25
"""Largest throughput, relative to that of back-to-back batches of the median latency, that is not an error. Noise and
faster batches than the median explain a little more than 1."""

LEAST_THROUGHPUT = 0.4
"""Smallest such throughput without a warning: instances that wait for more than half of the time."""

_UNITS = {0.001: "seconds", 1000.0: "microseconds", 1e6: "nanoseconds"}
"""Relative throughput if the latencies have a unit that is not milliseconds -> the unit."""

_UNIT_FACTOR = 4.0

_LEAST_RATIO = 1e-300
"""Smallest ratio of two throughputs; 0 has no logarithm."""

FASTER = 0.85
"""Smallest ratio of latencies that is not a warning, where the latency should not fall."""

OUTLIER_SDS = 4.0
"""Standard deviations of the fitted latency, beyond which a row is an outlier."""

_OUTLIER_RATIO = 1.25
"""Smallest ratio between an outlier and the fitted latency, or between the fitted latency and the outlier."""

Rooms = Mapping[str, Mapping[str, float]]
"""GPU model -> kind of slice -> memory of the slice in MiB."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or may be wrong, with a row.

    Attributes:
        key: Configuration of the row. None if the finding is about a variant as a whole.
        severity: `error` if the row cannot be right or cannot be used, else `warning`.
        message: Description.
        hint: Advice on how to correct it.
    """

    key: ProfileKey | None
    severity: Severity
    message: str
    hint: str = ""


def check_profiles(
    table: ProfileTable,
    *,
    rooms: Rooms,
    graph: TaskGraph | None = None,
    fits: Mapping[str, LatencyFit] | None = None,
    digests: Mapping[tuple[str, str], str] | None = None,
) -> list[Finding]:
    """Returns everything that may be wrong with a table.

    Args:
        table: The table.
        rooms: Known GPU models and their slices.
        graph: Graph that the table belongs to.
        fits: Fits by GPU model, to find outliers; none are found without them.
        digests: (task, variant) -> digest of its present model, to find models that have changed.
    """
    found = [finding for row in table.rows() for finding in (*_names(row, rooms, graph), *_figures(row))]
    found += [*_curves(table), *_outliers(table, fits or {}), *_without_memory(table, rooms)]
    found += [*_of_both_kinds(table), *_stale(table, digests or {})]
    if graph is not None:
        boards = {row.key.gpu for row in table.rows()} & set(rooms)
        found += [Finding(None, "warning", message) for message in missing(graph, table, boards)]
    return found


def _names(row: ProfileRow, rooms: Rooms, graph: TaskGraph | None) -> Iterator[Finding]:
    key = row.key
    slices = rooms.get(key.gpu)
    if slices is None:
        yield Finding(key, "error", f"there is no GPU model '{key.gpu}'", nearest(key.gpu, rooms, "GPU models"))
    elif key.slice not in slices:
        hint = nearest(key.slice, slices, f"slices of {key.gpu}")
        yield Finding(key, "error", f"{key.gpu} has no slice '{key.slice}'", hint)
    elif row.memory_mib > slices[key.slice]:
        message = f"{row.memory_mib:g} MiB are more than the {slices[key.slice]:g} MiB of a {key.slice} of {key.gpu}"
        yield Finding(key, "error", message, "no plan can use this row; measure it again, or remove it")
    if graph is None:
        return
    task = graph.tasks.get(key.task)
    if task is None:
        hint = nearest(key.task, graph.tasks, "tasks of the graph")
        yield Finding(key, "error", f"the graph has no task '{key.task}', so plans ignore the row", hint)
        return
    variants = [variant.name for variant in task.variants]
    if key.variant not in variants:
        hint = nearest(key.variant, variants, f"variants of {key.task}")
        yield Finding(key, "error", f"{key.task} has no variant '{key.variant}', so plans ignore the row", hint)


def _figures(row: ProfileRow) -> Iterator[Finding]:
    """Compares the throughput with that of back-to-back batches."""
    most_rps = 1000 * row.key.instances * row.key.batch / row.latency_p50_ms
    ratio = max(row.throughput_rps / most_rps, _LEAST_RATIO)
    said = f"{row.throughput_rps:g} items/s"
    allowed = f"{row.key.instances} x batch {row.key.batch} every {row.latency_p50_ms:g} ms are {most_rps:.4g} items/s"
    unit = next((u for factor, u in _UNITS.items() if abs(math.log(ratio / factor)) < math.log(_UNIT_FACTOR)), None)
    if unit is not None:
        hint = f"the latencies seem to be in {unit}; write milliseconds"
        yield Finding(row.key, "error", f"the throughput is {said}, but {allowed}", hint)
    elif ratio > MOST_THROUGHPUT:
        hint = "latency is of one batch, throughput is of all instances together; correct one of them"
        yield Finding(row.key, "error", f"the throughput is {said}, but {allowed}", hint)
    elif ratio < LEAST_THROUGHPUT:
        hint = "measure with all instances busy"
        yield Finding(row.key, "warning", f"the throughput is only {said}, while {allowed}", hint)


def _curves(table: ProfileTable) -> Iterator[Finding]:
    """Finds latencies that fall along a curve, and rows that repeat those of fewer instances, among unfitted rows."""
    for group, order, description in _CURVES:
        unfitted = [row for row in table.rows() if row.source != "fitted"]
        rows = sorted(unfitted, key=lambda row: (group(row.key), order(row.key)))
        for lesser, row in pairwise(rows):
            if group(lesser.key) != group(row.key):
                continue
            other = description.format(key=lesser.key)
            if row.latency_p50_ms < FASTER * lesser.latency_p50_ms:
                message = (
                    f"the latency of {row.latency_p50_ms:g} ms is less than the {lesser.latency_p50_ms:g} ms {other}"
                )
                yield Finding(row.key, "warning", message, "measure both again")
            figures = [(one.latency_p50_ms, one.throughput_rps) for one in (lesser, row)]
            if lesser.key.instances < row.key.instances and figures[0] == figures[1]:
                yield Finding(row.key, "warning", f"the figures repeat those {other}", "measure again")


_CURVES: tuple[tuple[Callable[[ProfileKey], tuple[Any, ...]], Callable[[ProfileKey], Any], str], ...] = (
    (lambda k: (k.gpu, k.task, k.variant, k.slice, k.instances), lambda k: k.batch, "of a batch of {key.batch}"),
    (lambda k: (k.gpu, k.task, k.variant, k.slice, k.batch), lambda k: k.instances, "with {key.instances} instances"),
    (
        lambda k: (k.gpu, k.task, k.variant, k.instances, k.batch),
        lambda k: [-share for share in SHARES[k.slice]],
        "on a {key.slice}",
    ),
)
"""Curves along which the latency should not fall: what their rows have in common, their order, and the words for the
row before."""


def _without_memory(table: ProfileTable, rooms: Rooms) -> Iterator[Finding]:
    """Finds variants with rows of 0 MiB on slices whose memory is known."""
    counts = Counter(
        (row.key.gpu, row.key.task, row.key.variant)
        for row in table.rows()
        if row.memory_mib == 0 and math.isfinite(rooms.get(row.key.gpu, {}).get(row.key.slice, math.inf))
    )
    for (gpu, task, variant), count in counts.items():
        message = f"the memory of {task}.{variant} on {gpu} is 0 MiB in {count} rows, so plans do not limit it"
        yield Finding(None, "warning", message, "measure it, or write that of all instances together")


def _of_both_kinds(table: ProfileTable) -> Iterator[Finding]:
    """Finds GPU models of which some rows are of streams and some of MPS processes, which no cluster has both."""
    for gpu in sorted({row.key.gpu for row in table.rows()}):
        counts = kinds(table.rows(gpu=gpu))
        if len(counts) > 1:
            numbers = " and ".join(f"{count} of {kind}" for kind, count in sorted(counts.items()))
            message = f"of the rows with several instances on {gpu}, {numbers}; no plan can use both"
            yield Finding(None, "warning", message, "keep those of the cluster's `processes`")


def _stale(table: ProfileTable, digests: Mapping[tuple[str, str], str]) -> Iterator[Finding]:
    """Finds variants whose model is not the one that was measured."""
    for (task, variant), digest in digests.items():
        rows = table.rows(task=task, variant=variant)
        stale = [row for row in rows if row.model and row.model != digest]
        if stale:
            measured = "this row was" if len(stale) == 1 else f"this row and {len(stale) - 1} more were"
            message = f"the model of {task}.{variant} has changed since {measured} measured"
            hint = f"measure again with `jigsaw-triton profile GRAPH --task {task} --variant {variant}`"
            yield Finding(stale[0].key, "warning", message, hint)


def _outliers(table: ProfileTable, fits: Mapping[str, LatencyFit]) -> Iterator[Finding]:
    """Compares each measured row with the fit of its variant, in which a single row has little weight."""
    for gpu, fit in fits.items():
        for (task, variant), one in fit.variants.items():
            known = table.rows(task=task, variant=variant, gpu=gpu)
            rows = [row for row in known if row.source == "measured" and fit.covers(row)]
            logs, sds = one.estimate.predict([(r.key.slice, r.key.instances, r.key.batch) for r in rows])
            for row, log, sd in zip(rows, logs.tolist(), fit.calibrated(sds).tolist(), strict=True):
                deviation = math.log(row.latency_p50_ms) - log
                if abs(deviation) > max(OUTLIER_SDS * sd, math.log(_OUTLIER_RATIO)):
                    message = f"the latency of {row.latency_p50_ms:g} ms is far from the fitted {math.exp(log):.4g} ms"
                    yield Finding(row.key, "warning", message, "measure it again")
