"""Checks that the examples in docs/reference/files.md are valid. The tables of keys are generated."""

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from jigsaw_triton.errors import SpecError
from jigsaw_triton.front.build import build_front
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.profiles.read import parse_profiles
from jigsaw_triton.spec.json_schema import json_schema
from jigsaw_triton.spec.load import load_cell, load_cluster, load_front
from jigsaw_triton.spec.step_file import parse_step
from tests.fakes.documents import built, edited

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text()


def block(language: str, beginning: str = "") -> str:
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if beginning in text)
    return str(found)


def test_the_example_graph_is_valid(tmp_path: Path) -> None:
    text = block("yaml", "TaskGraph")
    graph = built(text, tmp_path)
    assert [len(task.variants) for task in graph.tasks.values()] == [2, 1]
    Draft202012Validator(json_schema("graph")).validate(yaml.safe_load(text))


def test_the_example_cluster_is_valid(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(block("yaml", "kind: Cluster"))
    assert len(build_cluster(load_cluster(tmp_path), CATALOG).gpus) == 6


def test_the_example_profiles_are_valid() -> None:
    assert len(parse_profiles(block("csv"), "profiles.csv")) == 2


def test_the_example_front_and_cell_are_valid(tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(block("yaml", "kind: Front"))
    assert [dict(cell.shares) for cell in build_front(load_front(tmp_path)).cells] == [
        {"traffic": 0.6},
        {"traffic": 0.4, "faces": 1},
    ]
    (tmp_path / "cell.yaml").write_text(block("yaml", "kind: Cell"))
    assert load_cell(tmp_path).problems == ()


def test_the_example_mistakes_have_these_messages(tmp_path: Path) -> None:
    text = edited(
        block("yaml", "TaskGraph"),
        ("    latency_ms: 250\n", ""),
        ("percentile: 99", "percentle: 99"),
        ("for_each: detect.CROPS", "for_each: detct.CROPS"),
    )
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    assert str(caught.value).replace(str(tmp_path), "traffic") == block("text", "percentle").rstrip()


def test_the_example_steps_are_valid() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    parameters = [file.parameters.names for text in blocks if (file := parse_step(text)).parameters and not file.flaws]
    assert parameters == [("FRAME", "BOXES"), ("SCORE",)]
