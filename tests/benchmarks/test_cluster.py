"""Smoke tests: every part of the benchmark of clusters returns its figures."""

from importlib.util import find_spec

import pytest

from benchmarks import a100, harness, system
from benchmarks.cluster.__main__ import PARTS
from benchmarks.controller.simulated import TRACES
from benchmarks.effort import SMOKE
from benchmarks.parts import measure

pytestmark = pytest.mark.slow

FIGURES = {
    "cells": "cluster.cells.8_tasks",
    "faults": "cluster.rolling",
    "fronts": "cluster.cell_lost.lost",
    "gateway": "cluster.gateway_lost.lost",
    "planning": "cluster.plan_s",
    "raylets": "cluster.gcs_lost",
    "remote": "cluster.remote_cost.tiny",
    "simulated": "cluster.simulated",
}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    if part == "simulated" and not (a100.TABLE.exists() and TRACES.exists()):
        pytest.skip("the A100 table and the traces are not beside the checkout")
    if part == "raylets" and find_spec("ray") is None:
        pytest.skip("ray is not installed (extra dev)")
    found = system.run(measure(print, {part: PARTS[part]}, SMOKE), harness.limit_s("cluster"))
    assert FIGURES[part] in {figure.id for figure in found}
