"""`profile --accuracy` on real tritonservers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import jigsaw_triton as jt
from jigsaw_triton.applications import fetch_application
from jigsaw_triton.cli.main import program
from jigsaw_triton.resources import applications_dir

pytestmark = pytest.mark.e2e


def application(name: str, folder: Path) -> Path:
    ready = applications_dir() / name
    fetch_application(ready, lambda _: None)
    shutil.copytree(ready, folder / name)
    return folder / name


def profile(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        program.main(["profile", str(folder), "--accuracy", "-o", "json", *arguments])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    results: list[dict[str, Any]] = json.loads(captured.out)["results"]
    return results


def test_digits_are_as_accurate_as_the_ready_application_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All test digits, so that the accuracy is that of graph.yaml but for the rounding of another processor."""
    folder = application("digits", tmp_path)
    before = {v.name: v.accuracy for v in jt.load_graph(folder).tasks["classify"].variants}
    (result,) = profile(folder, capsys, "--variant", "mlp", "--again")
    variant = jt.load_graph(folder).tasks["classify"].variant("mlp")
    assert variant.accuracy == result["value"] == pytest.approx(before["mlp"], abs=0.003)
    assert variant.measured is not None
    assert variant.measured.how == ("exact", "labels.py", 719)
    assert profile(folder, capsys, "--variant", "mlp") == []


def test_pairs_and_agreement_of_strips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = application("digits-strip", tmp_path)
    few = ("--requests", "20")
    chosen = ("--variant", "gaps", "--variant", "windows", "--variant", "linear", "--variant", "cnn_m")
    found = profile(folder, capsys, "--pairs", *chosen, *few)
    assert len(found) == 4
    pairs = {
        tuple(c.variants.values()): c.accuracy
        for c in jt.load_graph(folder).combinations
        if c.measured is not None and c.measured.n == 20
    }
    assert {tuple(r["variants"].values()): r["value"] for r in found} == pairs
    assert pairs["gaps", "linear"] < pairs["windows", "cnn_m"] <= 1
    assert profile(folder, capsys, "--pairs", *chosen, *few) == []

    text = (folder / "graph.yaml").read_text()
    (folder / "graph.yaml").write_text(text.replace("      locate: {metric: f1, output: COLUMN}\n", ""))
    (result,) = profile(folder, capsys, "--task", "locate", *few)
    assert (result["measure"], result["with"], result["variants"]) == ("agreement", "windows", {"locate": "gaps"})
    assert 0 < result["value"] < 1
