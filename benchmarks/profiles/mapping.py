"""Error of the map of what spatial partitioning gains (`evaluate ablation --map`), against solving.

The map has no fitted parameter. It is compared on six graphs that have profiles: the applications, whose profiles are
assumed, and the reference graphs with the A100 table. Generated graphs show where it fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import a100, h100
from benchmarks.ablation import gain
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.generated import generated
from jigsaw_triton.evaluation.gain_map import estimated, model_gain
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.profiles.table import ProfileTable

GENERATED = 30
"""Number of generated graphs."""

FIRST_SEED = 1917


@dataclass(frozen=True, slots=True)
class Case:
    """A graph with its profiles.

    Attributes:
        graph: Graph.
        table: Profiles.
        gpu: Model of GPU.
    """

    graph: TaskGraph
    table: ProfileTable
    gpu: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Gain of a graph as solved, and relative errors.

    Attributes:
        name: Name of the graph and of the GPU.
        solved: Gain as solved.
        error: Error of the map for the graph, task by task.
        one_model_error: Error if the graph is taken for one model.
    """

    name: str
    solved: float
    error: float
    one_model_error: float

    def __str__(self) -> str:
        return f"{self.name} {self.solved:.2f} ({self.error:+.1%})"


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    known = [Case(graph, h100.h100_table(graph), h100.BOARD) for graph in map(h100.application, h100.NAMES)]
    if a100.TABLE.exists():
        known += [Case(graph, a100.a100_table(graph), a100.BOARD) for graph in map(a100.reference_graph, a100.NAMES)]
    else:
        progress(f"no error of the map on the reference graphs: {a100.TABLE} is missing")
    seeds = range(FIRST_SEED, FIRST_SEED + max(2, effort.count(GENERATED)))
    made = [Case(one.graph, one.table, h100.BOARD) for one in map(generated, seeds)]
    held_out = compared(known if effort.rounds > 1 else known[:1], progress)
    generated_too = compared(made, progress)
    listed = ", ".join(map(str, held_out))
    of_models = ", ".join(f"{one.name} {one.one_model_error:+.0%}" for one in held_out)
    median = float(np.median([abs(one.error) for one in held_out]))
    errors, one_model = (np.abs([getattr(one, what) for one in generated_too]) for what in ("error", "one_model_error"))
    what = f"relative error of the gain of A+S+T over A+T on {len(generated_too)} generated graphs"
    return [
        figure("profiles.map_error", median, "share", f"median; solved gain and error: {listed}", at_most=0.1),
        figure("profiles.map_error.generated", float(np.median(errors)), "share", f"median {what}"),
        figure(
            "profiles.map_error.generated.p95", float(np.quantile(errors, 0.95)), "share", f"95th percentile, {what}"
        ),
        figure(
            "profiles.map_error.generated.one_model",
            float(np.median(one_model)),
            "share",
            f"median {what}, each taken for one model with its launch share, SLO and largest batch; p95 "
            f"{np.quantile(one_model, 0.95):.0%}; {of_models}",
        ),
    ]


def compared(cases: Sequence[Case], progress: Progress) -> list[Compared]:
    """Compares the map with solving; graphs that cannot be served without S are left out."""
    found = []
    with lasting_solvers() as solvers:
        for case in cases:
            estimate = estimated(case.graph, case.table, board(case.gpu))
            one_model = None if estimate is None else model_gain(estimate.traits, board(case.gpu))
            solved = gain(case.graph, case.table, case.gpu, solvers)
            if estimate is None or one_model is None or solved is None:
                progress(f"{case.graph.name}: left out, because it cannot be served without S")
                continue
            name = f"{case.graph.name} on {case.gpu}"
            found.append(Compared(name, solved, estimate.gain / solved - 1, one_model / solved - 1))
            progress(str(found[-1]))
    return found
