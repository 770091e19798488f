"""Smoke tests: every part of the benchmark of clusters returns its figures."""

import pytest

from benchmarks import harness, system
from benchmarks.cluster.__main__ import PARTS, measure
from benchmarks.effort import SMOKE

pytestmark = pytest.mark.slow

FIGURES = {
    "cells": "cluster.cells.8_tasks",
    "planning": "cluster.plan_s",
}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    found = system.run(measure(print, {part: PARTS[part]}, SMOKE), harness.limit_s("cluster"))
    assert FIGURES[part] in {figure.id for figure in found}
