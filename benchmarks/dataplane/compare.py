"""Figures that compare two sides which were loaded in turn."""

from collections.abc import Sequence
from statistics import median

from benchmarks.harness import Figure, figure, spread
from jigsaw_triton.evaluation.load import Measured

NATIVE = "native ensemble, requests/s"


def rates(
    name: str, ours: Sequence[Measured], theirs: Sequence[Measured], baseline: str, at_least: float | None = None
) -> Figure:
    """Compares throughputs: our side's relative to the other's in the same round."""
    ours_rps, theirs_rps = ([run.throughput_rps for run in runs] for runs in (ours, theirs))
    return ratio(name, ours_rps, theirs_rps, baseline, at_least)


def ratio(
    name: str, ours_rps: Sequence[float], theirs_rps: Sequence[float], baseline: str, at_least: float | None = None
) -> Figure:
    """Compares rates: our side's relative to the other's in the same round."""
    ratios = [one / other for one, other in zip(ours_rps, theirs_rps, strict=True)]
    note = f"median of {len(ratios)} rounds, {spread(ratios)}; {median(ours_rps):.4g} requests/s; baseline: {baseline}"
    return figure(name, median(ratios), "ratio", note, at_least=at_least, baseline=median(theirs_rps))


def added_ms(ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[float]:
    """Returns the difference between our side's p50 and the other's, for each round."""
    return [one.latency_ms[50] - other.latency_ms[50] for one, other in zip(ours, theirs, strict=True)]


def clients(count: int) -> str:
    """Returns the number of clients as the last part of a figure's identifier."""
    return f"{count}_client{'s' if count > 1 else ''}"
