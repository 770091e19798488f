"""Figures of two sides that were loaded in turn."""

from collections.abc import Sequence
from statistics import median

from benchmarks.harness import Figure, figure, spread
from jigsaw_triton.evaluation.load import Measured

NATIVE = "native ensemble, requests/s"


def rates(
    name: str, ours: Sequence[Measured], theirs: Sequence[Measured], baseline: str, at_least: float | None = None
) -> Figure:
    """One side's throughput over another's in the same round."""
    ours_rps, theirs_rps = ([run.throughput_rps for run in runs] for runs in (ours, theirs))
    return ratio(name, ours_rps, theirs_rps, baseline, at_least)


def ratio(
    name: str, ours_rps: Sequence[float], theirs_rps: Sequence[float], baseline: str, at_least: float | None = None
) -> Figure:
    """Likewise, of bare rates."""
    ratios = [one / other for one, other in zip(ours_rps, theirs_rps, strict=True)]
    note = f"median of {len(ratios)} rounds, {spread(ratios)}; {median(ours_rps):.4g} requests/s; baseline: {baseline}"
    return figure(name, median(ratios), "ratio", note, at_least=at_least, baseline=median(theirs_rps))


def added_ms(ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[float]:
    """By how much one side's p50 is above the other's, round by round."""
    return [one.latency_ms[50] - other.latency_ms[50] for one, other in zip(ours, theirs, strict=True)]


def clients(count: int) -> str:
    """As the end of an id."""
    return f"{count}_client{'s' if count > 1 else ''}"
