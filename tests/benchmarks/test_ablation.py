from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.a100 import Measurement
from benchmarks.ablation import Case, Study, board_rps, measure
from benchmarks.ablation_plot import Line, plot
from benchmarks.effort import SMOKE
from jigsaw_triton.planner.solver.solver import lasting_solvers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study() -> Iterator[Study]:
    with lasting_solvers() as solvers:
        yield Study(["social"], solvers, print)


def test_the_benchmark_has_a_smoke_run() -> None:
    found = {figure.id for figure in measure(print, SMOKE)}
    assert {"ablation.gain.social", "ablation.gain.batch_1.M", "ablation.gain.batch_1.M+P"} <= found


def test_spatial_partitioning_gains_less_with_larger_batches_and_more_with_both_parts(study: Study) -> None:
    one, many, slices = (
        study.gains(Case(largest_batch=batch, part=part))["social"]
        for batch, part in ((1, "M+P"), (64, "M+P"), (1, "M"))
    )
    assert one > many > 1
    assert one > slices > 1


@pytest.mark.parametrize(("features", "rps"), [("", 50.0), ("P", 60.0), ("M", 70.0), ("S", 140.0)])
def test_a_board_is_cut_into_slices_of_one_kind(features: str, rps: float) -> None:
    rows = [
        Measurement("m", slices, 1, processes, 0.1, rate)
        for slices, processes, rate in ((7, 1, 50.0), (7, 2, 60.0), (1, 1, 10.0), (1, 2, 20.0))
    ]
    assert board_rps(rows, features) == rps


def test_an_application_that_needs_partitioning_has_no_gain(study: Study) -> None:
    impossible = Case(tightness=0.5)
    assert study.gains(impossible) == {}
    assert study.mean(impossible) is None


def test_the_plot_has_a_panel_for_each_assumption(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    panels = [[Line(f"line {number}", ((1, 10.0), (64, 2.0)))] for number in range(3)]
    plot(panels, 11.3, tmp_path / "gain.svg")
    assert ElementTree.parse(tmp_path / "gain.svg").getroot().tag.endswith("svg")
