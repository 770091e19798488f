"""A sparse table of profiles: the rows of the A100 table that a profiler would measure first."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from benchmarks import a100
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.profiles.design import most_informative
from jigsaw_triton.profiles.estimation import Prior, Sample, estimate
from jigsaw_triton.profiles.filling import QUANTILE, fitted_rows
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.latency_model import Configuration
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

POINTS = 12
"""Number of rows of each variant that are measured."""


def sparse(rows: Iterable[ProfileRow], points: int = POINTS) -> list[ProfileRow]:
    """Returns the rows that are measured, with the source `measured`.

    Each variant is measured on its own, point by point: the next point is the most informative one given the points
    before it. Only their latencies are looked at. Configurations without a row do not fit into the memory of the slice.

    Args:
        rows: Rows of all variants.
        points: Number of rows of each variant.
    """
    variants: dict[tuple[str, str], dict[Configuration, ProfileRow]] = {}
    for row in rows:
        configuration = (row.key.slice, row.key.instances, row.key.batch)
        variants.setdefault((row.key.task, row.key.variant), {})[configuration] = row
    return [replace(row, source="measured") for known in variants.values() for row in _measured(known, points)]


def _measured(known: dict[Configuration, ProfileRow], points: int) -> list[ProfileRow]:
    measured: dict[Configuration, ProfileRow] = {}
    prior = Prior()
    found = estimate(Sample((), ()), prior)
    while len(measured) < min(points, len(known)):
        point = most_informative(found, list(known), measured)
        measured[point] = known[point]
        latencies_ms = tuple(row.latency_p50_ms for row in measured.values())
        found = estimate(Sample(tuple(measured), latencies_ms), prior, found.parameters)
    return list(measured.values())


def filled(measured: Collection[ProfileRow], complete: ProfileTable, quantile: float = QUANTILE) -> ProfileTable:
    """Returns the measured rows, and fitted rows for the other configurations of a complete table."""
    rooms = {(a100.BOARD, kind): float(p.memory_mib or 0) for kind, p in board(a100.BOARD).profiles.items()}
    wanted = [row.key for row in complete.rows()]
    fits = fit_latency(measured)
    fitted = fitted_rows(ProfileTable(measured), fits, wanted, quantile=quantile, rooms=rooms)
    return ProfileTable([*measured, *fitted])


def measured_too(
    measured: Collection[ProfileRow], used: Iterable[ProfileKey], complete: ProfileTable, points: int = POINTS
) -> list[ProfileRow]:
    """Returns the measured rows and those of configurations that a plan uses.

    Args:
        measured: Measured rows.
        used: Configurations that a plan uses, the most important first.
        complete: Table with the rows of all configurations.
        points: Largest number of measured rows of each variant.
    """
    known = {row.key: row for row in measured}
    counts = Counter((key.task, key.variant) for key in known)
    for key in used:
        if key not in known and counts[key.task, key.variant] < points and (row := complete.get(key)) is not None:
            known[key] = replace(row, source="measured")
            counts[key.task, key.variant] += 1
    return list(known.values())
