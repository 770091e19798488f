"""Computes the figures of a report: the best configurations, Pareto fronts, and the fit against the measurements."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

import numpy as np

from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.profiles.check import Finding, Rooms
from jigsaw_triton.profiles.fit import INTERVAL, LatencyFit
from jigsaw_triton.profiles.latency_model import SHARES
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable, Source

_ROUNDING = 1e-9
"""Relative error that an accuracy may have."""

_MOST_DEVIATION = 50.0
"""Largest logarithm of a factor between latency and prediction. Rows that are further off have no useful prediction."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Fit of a GPU model, for comparison with the rows that it was made from.

    Attributes:
        fit: The fit.
        sources: Sources of the rows that it was made from.
    """

    fit: LatencyFit
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Median latency of a row, predicted by a fit that did not have the row.

    Attributes:
        row: The row.
        deviation: Logarithm of the row's latency over the predicted one.
        width: Largest size of `deviation` with which the row is in the interval of the probability `INTERVAL`.
    """

    row: ProfileRow
    deviation: float
    width: float

    @property
    def predicted_ms(self) -> float:
        """Predicted latency in milliseconds."""
        return self.row.latency_p50_ms / math.exp(self.deviation)

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Ends of the interval in milliseconds."""
        factor = math.exp(self.width)
        return self.predicted_ms / factor, self.predicted_ms * factor

    @property
    def inside(self) -> bool:
        """True if the row's latency is in the interval."""
        return abs(self.deviation) <= self.width


@dataclass(frozen=True, slots=True)
class Validation:
    """Cross-validation of a variant.

    Attributes:
        sources: Sources of the rows that it was made with.
        median_error: Median of the relative errors.
        p95_error: 95th percentile of the relative errors.
        predictions: Predictions of all of these rows.
    """

    sources: tuple[Source, ...]
    median_error: float
    p95_error: float
    predictions: tuple[Prediction, ...]

    @property
    def coverage(self) -> float:
        """Share of the rows that are in their interval."""
        return sum(one.inside for one in self.predictions) / len(self.predictions)


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """Figures of a variant on one GPU model.

    Attributes:
        name: Name of the variant.
        accuracy: Accuracy in the unit of the graph; None if it is not known.
        relative_accuracy: Accuracy relative to the best variant of the task; None if it is not known.
        accurate: False if every request that the variant answers misses the SLO's accuracy.
        rows: Rows, sorted by configuration.
        within: Rows whose 95th percentile alone is within the latency of the SLO; all rows without an SLO.
        best: Row of `within` with the highest throughput per compute slice; None if there is none.
        fastest: Row with the shortest 95th percentile.
        front: Rows that no other row surpasses in both latency and throughput per compute slice, by latency.
        dominated_by: Name of a variant that is at least as accurate and carries at least as much per compute slice,
            one of the two more. Empty if there is none, or if it is not known.
        validation: Cross-validation; None if the variant could not be fitted.
    """

    name: str
    accuracy: float | None
    relative_accuracy: float | None
    accurate: bool
    rows: tuple[ProfileRow, ...]
    within: tuple[ProfileRow, ...]
    best: ProfileRow | None
    fastest: ProfileRow
    front: tuple[ProfileRow, ...]
    dominated_by: str
    validation: Validation | None

    @property
    def on_front(self) -> bool:
        """True if the variant is on the Pareto front of throughput per compute slice against accuracy."""
        return self.accuracy is not None and self.best is not None and not self.dominated_by


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """Figures of a task on one GPU model.

    Attributes:
        task: Name of the task.
        gpu: Name of the GPU model.
        variants: Variants with rows, the most accurate first.
        rooms: Memory of each kind of slice in MiB, as far as it is known.
    """

    task: str
    gpu: str
    variants: tuple[VariantFigures, ...]
    rooms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """Everything that a report shows.

    Attributes:
        file: Name of the file that the rows are from.
        modified: Time at which that file was written last; None if it is not known.
        graph: Graph that the rows belong to; None if it is not known.
        rows: All rows.
        findings: Findings of the check.
        tasks: Figures by task and GPU model.
        unfitted: Reason why there is no fit at all; empty if there is one.
    """

    file: str
    modified: datetime | None
    graph: TaskGraph | None
    rows: tuple[ProfileRow, ...]
    findings: tuple[Finding, ...]
    tasks: tuple[TaskFigures, ...]
    unfitted: str = ""

    @property
    def slo(self) -> Slo | None:
        """SLO of the graph; None if there is no graph."""
        return self.graph.slo if self.graph is not None else None

    @property
    def gpus(self) -> tuple[str, ...]:
        """Names of the GPU models, sorted."""
        return tuple(sorted({row.key.gpu for row in self.rows}))


def per_slice(row: ProfileRow) -> float:
    """Returns the throughput per compute slice, in items per second."""
    return row.throughput_rps / SHARES[row.key.slice][0]


def report_figures(
    table: ProfileTable,
    *,
    file: str,
    modified: datetime | None = None,
    graph: TaskGraph | None = None,
    bases: Mapping[str, Basis],
    unfitted: str = "",
    findings: Iterable[Finding] = (),
    rooms: Rooms,
) -> ReportFigures:
    """Computes the figures of a report.

    Args:
        table: Profiles.
        file: Name of the file that they are from.
        modified: Time at which that file was written last.
        graph: Graph that the profiles belong to.
        bases: Fits by GPU model.
        unfitted: Reason why there is no fit at all.
        findings: Findings of the check.
        rooms: Memory of each kind of slice in MiB by GPU model.
    """
    known = list(graph.tasks) if graph is not None else []
    names = {(row.key.task, row.key.gpu) for row in table.rows()}
    order = sorted(
        names, key=lambda name: (name[0] not in known, known.index(name[0]) if name[0] in known else 0, name)
    )
    return ReportFigures(
        file,
        modified,
        graph,
        table.rows(),
        tuple(findings),
        tuple(_task(table, task, gpu, graph, bases.get(gpu), rooms.get(gpu, {})) for task, gpu in order),
        unfitted,
    )


def _task(
    table: ProfileTable,
    task: str,
    gpu: str,
    graph: TaskGraph | None,
    basis: Basis | None,
    rooms: Mapping[str, float],
) -> TaskFigures:
    described = graph.tasks.get(task) if graph is not None else None
    accuracies = {variant.name: variant.accuracy for variant in described.variants} if described is not None else {}
    by_variant: dict[str, list[ProfileRow]] = {}
    for row in table.rows(task=task, gpu=gpu):
        by_variant.setdefault(row.key.variant, []).append(row)
    latency_ms = graph.slo.latency_ms if graph is not None else math.inf
    within = {name: tuple(row for row in rows if row.latency_p95_ms <= latency_ms) for name, rows in by_variant.items()}
    best = {name: max(rows, key=per_slice, default=None) for name, rows in within.items()}
    offers = {name: (accuracies[name], per_slice(row)) for name, row in best.items() if row and name in accuracies}
    top = described.best_accuracy if described is not None else 0.0
    floor = graph.slo.accuracy if graph is not None and graph.slo.accuracy_mode == "floor" else 0.0
    least = top * floor * (1 - _ROUNDING)
    return TaskFigures(
        task,
        gpu,
        tuple(
            VariantFigures(
                name,
                accuracies.get(name),
                accuracies[name] / top if name in accuracies else None,
                accuracies.get(name, top) >= least,
                tuple(by_variant[name]),
                within[name],
                best[name],
                min(by_variant[name], key=lambda row: row.latency_p95_ms),
                _front(by_variant[name]),
                _dominating(name, offers),
                _validation(by_variant[name], basis),
            )
            for name in sorted(by_variant, key=lambda name: (-accuracies.get(name, -math.inf), name))
        ),
        {kind: mib for kind, mib in rooms.items() if math.isfinite(mib)},
    )


def _front(rows: Iterable[ProfileRow]) -> tuple[ProfileRow, ...]:
    front: list[ProfileRow] = []
    for row in sorted(rows, key=lambda row: (row.latency_p95_ms, -per_slice(row))):
        if not front or per_slice(row) > per_slice(front[-1]):
            front.append(row)
    return tuple(front)


def _dominating(name: str, offers: Mapping[str, tuple[float, float]]) -> str:
    """Returns the variant of the highest throughput that is no worse in both of a variant's offers, and not equal."""
    mine = offers.get(name)
    if mine is None:
        return ""
    better = [other for other, offer in offers.items() if offer != mine and offer[0] >= mine[0] and offer[1] >= mine[1]]
    return max(better, key=lambda other: offers[other][1], default="")


def _validation(rows: Sequence[ProfileRow], basis: Basis | None) -> Validation | None:
    name = rows[0].key.task, rows[0].key.variant
    if basis is None or name not in basis.fit.variants:
        return None
    one = basis.fit.variants[name]
    widths = NormalDist().inv_cdf((1 + INTERVAL) / 2) * basis.fit.calibrated(np.array(one.expected))
    used = [row for row in rows if row.source in basis.sources and basis.fit.covers(row)]
    predictions = tuple(
        Prediction(row, min(max(deviation, -_MOST_DEVIATION), _MOST_DEVIATION), min(width, _MOST_DEVIATION))
        for row, deviation, width in zip(used, one.deviations, widths.tolist(), strict=True)
    )
    sources = tuple(source for source in basis.sources if any(row.source == source for row in used))
    return Validation(sources, one.median_error, one.p95_error, predictions)
