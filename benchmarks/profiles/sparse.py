"""A sparse table of profiles: the rows of the A100 table that a profiler would measure first."""

from collections.abc import Iterable
from dataclasses import replace

from jigsaw_triton.profiles.design import most_informative
from jigsaw_triton.profiles.estimation import Prior, Sample, estimate
from jigsaw_triton.profiles.latency_model import Configuration
from jigsaw_triton.profiles.table import ProfileRow

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
