"""Plans behind the pictures: what they are for, how they are made, and where they are kept."""

import json
from dataclasses import dataclass
from pathlib import Path

import jigsaw_triton as jt
from jigsaw_triton.api.files import load_partition
from jigsaw_triton.planner.cells.model import Partition, partition_to_text
from jigsaw_triton.planner.domain.features import FEATURES
from jigsaw_triton.planner.domain.plan import Plan, plan_to_text
from jigsaw_triton.planner.domain.problem import Options, Problem

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "concepts" / "plans"


@dataclass(frozen=True, slots=True)
class Example:
    """A plan of a ready application.

    Attributes:
        app: Name of the application in `ensembles`.
        gpus: GPUs to plan on, as `--gpus` takes them.
        demand_rps: Requests a second to plan for.
        features: Features of the planner, as `--features` takes them.
        running: Name of the example that runs before it; empty for none.
    """

    app: str
    gpus: str
    demand_rps: float
    features: str = FEATURES
    running: str = ""

    @property
    def options(self) -> Options:
        """Options of the planner."""
        return Options(features=self.features, time_limit_s=TIME_LIMIT_S)

    def problem(self) -> Problem:
        """Returns the planning problem."""
        running = kept(self.running) if self.running else None
        return jt.load_problem(
            ROOT / "ensembles" / self.app, demand=self.demand_rps, gpus=self.gpus, driver="emulated", running=running
        )


EXAMPLES = {
    "traffic-350": Example("traffic", "2xH100-80GB", 350),
    "traffic-600": Example("traffic", "2xH100-80GB", 600, running="traffic-350"),
    **{f"ar-{letters}": Example("ar", "12xH100-80GB", 300, letters) for letters in ("AST", "AS", "AT", "ST")},
}

TIME_LIMIT_S = 120.0
"""Seconds for solving. A second is enough, but not on a machine that is very busy."""

CELLS = "cells"
CELLS_RPS = 2200
CELLS_COUNT = 2


def kept(name: str) -> Plan:
    """Returns a plan that is kept."""
    return jt.load_plan(FOLDER / f"{name}.json")


def kept_cells() -> Partition:
    """Returns the partition into cells that is kept."""
    return load_partition(FOLDER / f"{CELLS}.json")


def make(name: str) -> Plan:
    """Makes the plan of an example."""
    example = EXAMPLES[name]
    return jt.plan(example.problem(), options=example.options)


def cells_problem() -> Problem:
    """Returns the planning problem of the cells."""
    return jt.load_problem(ROOT / "ensembles" / "traffic", demand=CELLS_RPS, cluster=FOLDER / "cluster.yaml")


def keep_all() -> None:
    """Makes all plans again and keeps them."""
    for name in EXAMPLES:
        (FOLDER / f"{name}.json").write_text(plan_to_text(make(name)))
    partition = jt.plan_cells(cells_problem(), cells=CELLS_COUNT)
    text = json.dumps(json.loads(partition_to_text(partition)), indent=1)
    (FOLDER / f"{CELLS}.json").write_text(text + "\n")
