from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from jigsaw_triton.spec.json_schema import Kind, json_schema
from tests.fakes.documents import CLUSTER, GRAPH, edited
from tests.spec.test_load import MISTAKES

APPLICATIONS = sorted((Path(__file__).parents[2] / "ensembles").glob("*/graph.yaml"))


def validator(kind: Kind) -> Draft202012Validator:
    return Draft202012Validator(json_schema(kind))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_schema_is_a_valid_json_schema(kind: Kind) -> None:
    Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize(
    "text", [GRAPH, edited(GRAPH, ("CROP: detect.CROPS", "CROP: {from: detect.CROPS, dtype: FP32}"))]
)
def test_a_valid_graph_passes(text: str) -> None:
    validator("graph").validate(yaml.safe_load(text))


def test_a_valid_cluster_passes() -> None:
    validator("cluster").validate(yaml.safe_load(CLUSTER))


@pytest.mark.parametrize("path", APPLICATIONS, ids=lambda path: path.parent.name)
def test_the_ready_applications_pass(path: Path) -> None:
    validator("graph").validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", sorted(MISTAKES.keys() - {"not a number", "duplicate key"}))
def test_the_schema_refuses_each_mistake_that_the_loader_refuses(name: str) -> None:
    document = yaml.safe_load(edited(GRAPH, MISTAKES[name][0]))
    assert not validator("graph").is_valid(document)


def examples(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields each example in a schema with the part of the schema that it illustrates."""
    if isinstance(node, dict):
        for example in node.get("examples", []) if isinstance(node.get("examples"), list) else []:
            yield node, example
        for value in node.values():
            yield from examples(value)
    elif isinstance(node, list):
        for item in node:
            yield from examples(item)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_examples_in_messages_are_valid(kind: Kind) -> None:
    schema = json_schema(kind)
    found = list(examples(schema))
    assert len(found) > 3
    for part, example in found:
        Draft202012Validator({**part, "$defs": schema["$defs"]}).validate(example)
