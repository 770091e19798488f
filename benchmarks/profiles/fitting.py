"""Error of the fitted latency model on rows of the A100 table that it has not seen, and coverage of its intervals."""

from collections import defaultdict

import numpy as np

from benchmarks import a100
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.sparse import POINTS, sparse
from jigsaw_triton.profiles.fit import INTERVAL, LatencyFit, VariantName, fit_latency
from jigsaw_triton.profiles.latency_model import Array
from jigsaw_triton.profiles.table import ProfileRow

TASK = "any"
"""Task of all models of the table, which has none."""

_SMALLEST_COVERAGE, _LARGEST_COVERAGE = 0.87, 0.93


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    if not a100.TABLE.exists():
        progress(f"no figures of the fit: {a100.TABLE} is missing")
        return []
    models = sorted(a100.PARAMETERS_M)[: max(3, effort.count(len(a100.PARAMETERS_M)))]
    rows = a100.a100_profiles(TASK, models)
    measured = sparse(rows)
    fit = fit_latency(measured)[a100.BOARD]
    seen = {row.key for row in measured}
    unseen = [row for row in rows if row.key not in seen]
    errors, covered = _judged(fit, unseen, progress)
    coverage = float(np.mean(covered))
    what = f"{len(unseen)} unseen rows of {len(models)} models on {a100.BOARD}, {POINTS} measured rows each"
    each = [one.median_error for one in fit.variants.values()]
    stated = f"cross-validation of the measured rows alone states {np.median(each):.3f}"
    off = abs(coverage - (_SMALLEST_COVERAGE + _LARGEST_COVERAGE) / 2)
    width = (_LARGEST_COVERAGE - _SMALLEST_COVERAGE) / 2
    return [
        figure("profiles.fit.median_error", float(np.median(errors)), "share", f"{what}; {stated}", at_most=0.04),
        figure("profiles.fit.p95_error", float(np.quantile(errors, 0.95)), "share", what, at_most=0.12),
        figure("profiles.interval_coverage", coverage, "share", f"{INTERVAL:.0%} interval, {what}"),
        figure("profiles.interval_coverage.off", off, "share", "distance of the coverage from 90%", at_most=width),
    ]


def _judged(fit: LatencyFit, rows: list[ProfileRow], progress: Progress) -> tuple[Array, Array]:
    """Returns the relative error of each prediction, and whether the interval covers the row."""
    variants: dict[VariantName, list[ProfileRow]] = defaultdict(list)
    for row in rows:
        variants[row.key.task, row.key.variant].append(row)
    errors, covered = [], []
    for name, known in variants.items():
        configurations = [(row.key.slice, row.key.instances, row.key.batch) for row in known]
        actual = np.array([row.latency_p50_ms for row in known])
        low, middle, high = (
            fit.predict(name, configurations, quantile=q) for q in ((1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2)
        )
        errors.append(np.abs(middle / actual - 1))
        covered.append((low <= actual) & (actual <= high))
        progress(
            f"{name[1]}: {len(known)} rows, median error {np.median(errors[-1]):.3f}, p95 "
            f"{np.quantile(errors[-1], 0.95):.3f}, {np.mean(covered[-1]):.0%} within the interval"
        )
    return np.concatenate(errors), np.concatenate(covered)
