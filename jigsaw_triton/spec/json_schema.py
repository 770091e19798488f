"""JSON Schemas of the files that users write, for editors and for messages, made from the models that validate them."""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from jigsaw_triton.spec.cells import CellDocument, FrontDocument
from jigsaw_triton.spec.cluster_schema import ClusterDocument
from jigsaw_triton.spec.graph_schema import GraphDocument
from jigsaw_triton.spec.source import Path

Kind = Literal["graph", "cluster", "front", "cell"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[Kind, type[BaseModel]] = {
    "graph": GraphDocument,
    "cluster": ClusterDocument,
    "front": FrontDocument,
    "cell": CellDocument,
}


class _Described(GenerateJsonSchema):
    """Describes each field by its docstring.

    pydantic's own option for this reads the source of the models at each import, which takes as long as making them.
    """

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """Returns the schema of a model, with descriptions."""
        found = super().model_schema(schema)
        for model in reversed(schema["cls"].__mro__):
            for name, text in _docstrings(inspect.getmodule(model)).get(model.__name__, {}).items():
                field = schema["cls"].model_fields[name]
                found["properties"][field.alias or name]["description"] = text
        return found


@cache
def _docstrings(module: ModuleType | None) -> Mapping[str, Mapping[str, str]]:
    """Returns the docstrings of the fields in each class of a module of this package: class -> field -> docstring."""
    if module is None or not module.__name__.startswith(__package__):
        return {}
    classes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    return {
        one.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in pairwise(one.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for one in classes
    }


def json_schema(kind: Kind) -> dict[str, Any]:
    """Returns the JSON Schema of a file: `graph` stands for graph.yaml, and so on.

    To use it in an editor, save it and begin the YAML file with `# yaml-language-server: $schema=FILE`.
    """
    schema = _closed(_MODELS[kind].model_json_schema(by_alias=True, schema_generator=_Described))
    return {"$schema": _DIALECT, **schema, "title": f"{kind}.yaml"}


def _closed(node: Any) -> Any:
    """Forbids other keys in mappings whose keys have a pattern, as the models do."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    return {**closed, "additionalProperties": False} if "patternProperties" in node else closed


def subschema(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns the part of a JSON Schema that describes one entry, or an empty schema if it describes none.

    Of several alternatives it follows the first that is not null: the long form of an entry that also has a short form.
    """
    node = schema
    for part in path:
        node = _step(resolved(schema, node), part)
    return resolved(schema, node)


def _step(node: dict[str, Any], part: str | int) -> dict[str, Any]:
    if isinstance(part, int):
        found = node.get("items", {})
    else:
        entries = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
        found = node.get("properties", {}).get(part, entries)
    return found if isinstance(found, dict) else {}


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Returns a part of a JSON Schema without references: the long form of an entry that also has a short form.

    Args:
        schema: The whole schema.
        node: The part.
    """
    if "anyOf" in node:
        first = next(option for option in node["anyOf"] if option.get("type") != "null")
        node = {**first, **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        target = schema["$defs"][node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node
