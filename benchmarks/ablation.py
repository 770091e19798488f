"""Benchmark of what spatial partitioning gains on the three applications, and how that depends on the assumptions.

The gain is the largest demand that 120 H100s carry with all features (A+S+T), relative to that without spatial
partitioning (A+T), in the paper's formulation. The paper reports 11.3. The profiles are those of `benchmarks.h100`, and
these assumptions vary:

- the time to launch an operator;
- the SLO, as a multiple of the time of the best variants alone on a whole GPU;
- the largest batch;
- the parts of spatial partitioning: MIG slices (M), or several instances in a slice (P), or both.

The same gain is computed for the reference graphs with the A100 table (`benchmarks.a100`), by the largest batch. There
the batch times are measurements, not assumptions. The table also says what the parts gain on a board with one model.

`--plot FILE` draws the gains into a .svg or .png file, which needs matplotlib.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import geometric_mean, median, quantiles

from benchmarks import a100, harness
from benchmarks.ablation_plot import Line, plot
from benchmarks.effort import FULL, Effort
from benchmarks.h100 import (
    BATCHES,
    BOARD,
    INSTANCES,
    LAUNCH_US,
    NAMES,
    Assumptions,
    alone_ms,
    application,
    fitted,
    h100_table,
)
from benchmarks.harness import Figure, Progress, figure, spread
from benchmarks.networks import TABLE_OPERATORS
from jigsaw_triton.evaluation.ablation import PUBLISHED_GAIN, spatial_gain
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.features import FEATURES, has
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.profiles.table import ProfileTable

GPUS = 120
TIGHTNESS = 4.0
"""SLO of the applications, as a multiple of `alone_ms`."""

LAUNCHES_US = (2.5, LAUNCH_US, 250.0)
TIGHTNESSES = (2.2, 3.0, 4.0, 6.0, 10.0, 20.0)
TIGHTNESS_BATCHES = (1, 4, 64)
A100_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PARTS = {"M": "AMT", "P": "APT", "M+P": "AST"}
"""Part of spatial partitioning -> features of the planner with it."""

BOARD_BATCHES = (1, 256)
"""Largest batches for which boards of the A100 table are compared."""

LIMIT_S = 10.0
"""Seconds for a solve. The best demand found within them counts."""


@dataclass(frozen=True, slots=True)
class Case:
    """Assumptions of a point of the study.

    Attributes:
        launch_us: Time to launch an operator, in microseconds.
        tightness: SLO as a multiple of the time of the best variants alone on a whole GPU.
        largest_batch: Largest batch.
        part: Part of spatial partitioning, a key of `PARTS`.
    """

    launch_us: float = LAUNCH_US
    tightness: float = TIGHTNESS
    largest_batch: int = BATCHES[-1]
    part: str = "M+P"

    def __str__(self) -> str:
        return (
            f"{self.part}, batches up to {self.largest_batch}, {self.launch_us:g} us an operator, "
            f"an SLO of {self.tightness:g} times the best variants alone"
        )


class Study:
    """Gains of cases, each computed once.

    Args:
        names: Names of applications.
        solvers: Factory of solvers by name.
        progress: Callback for a line about each case.
    """

    def __init__(self, names: Sequence[str], solvers: SolverFactory, progress: Progress) -> None:
        self._names, self._solvers, self._progress = names, solvers, progress
        self._graphs = {name: application(name) for name in names}
        self._known: dict[Case, dict[str, float]] = {}

    def gains(self, case: Case) -> dict[str, float]:
        """Returns the gain on each application; applications that no plan serves without S are left out."""
        if case not in self._known:
            found = {name: self._gain(name, case) for name in self._names}
            self._known[case] = {name: gain for name, gain in found.items() if gain is not None}
            self._progress(f"{case}: " + ", ".join(f"{name} {gain:.2f}" for name, gain in self._known[case].items()))
        return self._known[case]

    def mean(self, case: Case) -> float | None:
        """Returns the geometric mean of the gains; None if an application cannot be served without S."""
        gains = self.gains(case)
        return geometric_mean(gains.values()) if len(gains) == len(self._names) else None

    def _gain(self, name: str, case: Case) -> float | None:
        graph = self._graphs[name]
        slo = replace(graph.slo, latency_ms=case.tightness * alone_ms(graph, case.launch_us))
        batches = tuple(takewhile(lambda batch: batch <= case.largest_batch, BATCHES))
        table = h100_table(graph, Assumptions(case.launch_us, batches))
        return gain(replace(graph, slo=slo), table, BOARD, self._solvers, PARTS[case.part])


def gain(
    graph: TaskGraph, table: ProfileTable, gpu: str, solvers: SolverFactory, features: str = FEATURES
) -> float | None:
    """Returns the largest demand with these features relative to that of A+T on a cluster of these GPUs.

    The gain is None if no plan serves the graph without spatial partitioning.
    """
    gpus = Cluster(tuple(Gpu(GpuId(f"n{index // 8:04}", index % 8), board(gpu)) for index in range(GPUS)))
    problem = Problem((Workload(graph, 1.0),), gpus, {graph.name: table})
    found = spatial_gain(problem, Options(time_limit_s=LIMIT_S), features=features, solvers=solvers)
    return None if found is None else found.gain


def measured_gains(solvers: SolverFactory, progress: Progress, effort: Effort) -> dict[int, float]:
    """Returns largest batch -> geometric mean of the gains on the reference graphs, with the A100 table.

    Batches for which a graph cannot be served without S are left out, and all if the table is missing.
    """
    if not a100.TABLE.exists():
        progress("no gains on the A100: the table is not beside the checkout")
        return {}
    names, batches = (a100.NAMES, A100_BATCHES) if effort.rounds > 1 else (a100.NAMES[:1], A100_BATCHES[:1])
    found = {}
    for largest in batches:
        gains = []
        for graph in map(a100.reference_graph, names):
            rows = (row for row in a100.a100_table(graph).rows() if row.key.batch <= largest)
            table = ProfileTable(row for row in rows if row.key.instances <= INSTANCES[-1])
            gains.append(gain(graph, table, a100.BOARD, solvers))
        if None not in gains:
            found[largest] = geometric_mean(each for each in gains if each is not None)
            progress(f"A100 table, batch up to {largest}: {found[largest]:.2f}")
    return found


def model_error(progress: Progress) -> list[Figure]:
    """Measures how far the model of `benchmarks.h100` is from the A100 table."""
    if not a100.TABLE.exists():
        progress("no error of the model: the A100 table is not beside the checkout")
        return []
    errors = [error for model in TABLE_OPERATORS for error in fitted(model).errors]
    note = (
        f"relative error of the batch time in {len(errors)} rows of the A100 table; two parameters for each of "
        f"{len(TABLE_OPERATORS)} models, fitted to its rows with one process"
    )
    return [
        figure("ablation.model_error.median", median(errors), "share", note),
        figure("ablation.model_error.p95", quantiles(errors, n=20)[-1], "share", note),
    ]


def gain_figures(study: Study, effort: Effort) -> list[Figure]:
    """Measures the gains with the shipped profiles, and their dependence on each assumption."""
    note = (
        f"largest demand of A+S+T over that of A+T on {GPUS} {BOARD}; the paper reports {PUBLISHED_GAIN} on {GPUS} GPUs"
    )
    found = [figure(f"ablation.gain.{name}", gain, "ratio", note) for name, gain in study.gains(Case()).items()]
    batches = BATCHES if effort.rounds > 1 else BATCHES[:1]
    cases = [(f"batch_{b}.{part}", Case(largest_batch=b, part=part)) for b in batches for part in PARTS]
    if effort.rounds > 1:
        cases += [(f"launch_{us:g}us", Case(launch_us=us)) for us in LAUNCHES_US]
        cases += [(f"launch_{us:g}us.batch_1", Case(launch_us=us, largest_batch=1)) for us in LAUNCHES_US]
        cases += [(f"slo_{t:g}", Case(tightness=t)) for t in TIGHTNESSES]
    for name, case in cases:
        if (mean := study.mean(case)) is not None:
            note = f"geometric mean over the applications: {case}"
            found.append(figure(f"ablation.gain.{name}", mean, "ratio", note))
    return found


def measured_figures(measured: Mapping[int, float]) -> list[Figure]:
    """Returns the figures of `measured_gains`."""
    note = f"geometric mean over the reference graphs with the measured A100 table, {GPUS} {a100.BOARD}"
    return [figure(f"ablation.gain.a100.batch_{batch}", gain, "ratio", note) for batch, gain in measured.items()]


def board_figures(progress: Progress) -> list[Figure]:
    """Measures what the parts of spatial partitioning gain on whole boards of the A100 table, model by model."""
    if not a100.TABLE.exists():
        progress("no boards of the A100: the table is not beside the checkout")
        return []
    found = []
    for largest in BOARD_BATCHES:
        rows = [r for r in a100.measured() if r.batch <= largest and r.processes <= INSTANCES[-1]]
        for part, features in PARTS.items():
            gains = [
                board_rps([r for r in rows if r.model == model], features)
                / board_rps([r for r in rows if r.model == model], "")
                for model in sorted({r.model for r in rows})
            ]
            note = (
                f"items a second of an {a100.BOARD} over those of one process on it, as the A100 table has them; "
                f"slices of one kind, batches up to {largest}; geometric mean over {len(gains)} models, {spread(gains)}"
            )
            found.append(figure(f"ablation.board.a100.batch_{largest}.{part}", geometric_mean(gains), "ratio", note))
    return found


def board_rps(rows: Iterable[a100.Measurement], features: str) -> float:
    """Returns the most items a second that a board serves, cut into slices of one kind.

    Args:
        rows: Rows of one model.
        features: Features of the planner, of which M and P count.
    """
    profiles = board(a100.BOARD).profiles
    return max(
        profiles[f"{row.compute_slices}g"].max_instances * row.throughput_rps
        for row in rows
        if (has(features, "M") or row.compute_slices == board(a100.BOARD).compute_slices)
        and (has(features, "P") or row.processes == 1)
    )


def lines(study: Study, measured: Mapping[int, float]) -> tuple[list[Line], list[Line], list[Line]]:
    """Returns the lines of the three panels of the plot: by launch time, by part, and by SLO."""
    by_launch = [
        _line(study, f"{us:g} µs an operator", ((b, Case(launch_us=us, largest_batch=b)) for b in BATCHES))
        for us in LAUNCHES_US
    ]
    if measured:
        by_launch.append(Line("measured: A100 table", tuple(measured.items())))
    by_part = [_line(study, part, ((b, Case(largest_batch=b, part=part)) for b in BATCHES)) for part in PARTS]
    by_slo = [
        _line(study, f"batch up to {b}", ((t, Case(tightness=t, largest_batch=b)) for t in TIGHTNESSES))
        for b in TIGHTNESS_BATCHES
    ]
    return by_launch, by_part, by_slo


def _line(study: Study, label: str, cases: Iterable[tuple[float, Case]]) -> Line:
    means = ((x, study.mean(case)) for x, case in cases)
    return Line(label, tuple((x, mean) for x, mean in means if mean is not None))


def measure(progress: Progress, effort: Effort = FULL, picture: Path | None = None) -> Sequence[Figure]:
    """Measures all figures.

    Args:
        progress: Callback for lines about the progress.
        effort: Effort of the run. A smoke run has one application and one batch size.
        picture: Path of the plot; None to draw nothing.
    """
    with lasting_solvers() as solvers:
        study = Study(NAMES if effort.rounds > 1 else NAMES[:1], solvers, progress)
        measured = measured_gains(solvers, progress, effort)
        found = [
            *model_error(progress),
            *gain_figures(study, effort),
            *measured_figures(measured),
            *board_figures(progress),
        ]
        if picture is not None:
            plot(lines(study, measured), PUBLISHED_GAIN, picture)
    return found


if __name__ == "__main__":
    parser = harness.parser("ablation")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the gains into this .svg or .png file")
    given = parser.parse_args()
    sys.exit(harness.report("ablation", partial(measure, picture=given.plot), given.form))
