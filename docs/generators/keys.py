"""Keys of the files that users write, from the models that validate them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from docs.generators.markdown import code, plain, table
from jigsaw_triton.spec.entries import ADDRESS_PATTERN, IMAGE_PATTERN
from jigsaw_triton.spec.graph_schema import DType
from jigsaw_triton.spec.json_schema import Kind, json_schema, resolved
from jigsaw_triton.spec.words import NAME_PATTERN

PAGE = Path(__file__).resolve().parents[1] / "reference" / "files.md"

MARK = re.compile(r"^<!-- generated: keys (.+) -->$", re.MULTILINE)
"""Comment of a table on the page: a file, and the keys that lead to the section of the table."""

_TYPES = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "`true` or `false`",
}

_BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "minItems": "at least",
    "minProperties": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "maxItems": "at most",
    "maxProperties": "at most",
}

_PATTERNS = {NAME_PATTERN: "[name](#yaml)", ADDRESS_PATTERN: "host and port", IMAGE_PATTERN: "image"}

_DTYPES = list(get_args(DType))

Schema = dict[str, Any]


def keys(kind: Kind, *section: str) -> str:
    """Returns a table of the keys below `spec` of a file, or below one of its sections.

    A mapping within the section is in the same table, unless it has a table of its own on the page.

    Args:
        kind: File: `graph` stands for graph.yaml, and so on.
        section: Keys that lead from `spec` to the section.

    Raises:
        LookupError: There is no such section.
    """
    schema = json_schema(kind)
    node = resolved(schema, schema["properties"]["spec"])
    for key in section:
        if key not in node["properties"]:
            raise LookupError(f"{kind}.yaml has no section {' '.join(section)}")
        _, node = _inside(schema, node["properties"][key])
    others = {tuple(words.split()) for words in MARK.findall(PAGE.read_text(encoding="utf-8"))}
    return table(("key", "value", "default", "meaning"), _rows(schema, node, (kind, *section), others, ""))


def _rows(
    schema: Schema, node: Schema, place: tuple[str, ...], others: set[tuple[str, ...]], prefix: str
) -> Iterator[tuple[str, str, str, str]]:
    for key, entry in node["properties"].items():
        default = "required" if key in node.get("required", ()) else _default(entry.get("default"))
        yield code(prefix + key), _values(schema, entry), default, plain(" ".join(entry["description"].split()))
        suffix, inside = _inside(schema, entry)
        if "properties" in inside and (*place, key) not in others:
            yield from _rows(schema, inside, (*place, key), others, f"{prefix}{key}{suffix}.")


def _inside(schema: Schema, entry: Schema) -> tuple[str, Schema]:
    """Returns the suffix of an entry's key, and the mapping that it is, or that each of its members is."""
    node = resolved(schema, entry)
    if "items" in node:
        return "[]", resolved(schema, node["items"])
    if "patternProperties" in node:
        return ".NAME", resolved(schema, next(iter(node["patternProperties"].values())))
    return "", node


def _default(value: Any) -> str:
    match value:
        case None | dict() | list():
            return ""
        case str():
            return code(value)
        case _:
            return code(_number(value))


def _values(schema: Schema, entry: Schema) -> str:
    """Returns the values that an entry may have, as Markdown."""
    options = [resolved(schema, option) for option in entry.get("anyOf", [entry])]
    return " or ".join(dict.fromkeys(_form(option) for option in options if option.get("type") != "null"))


def _form(node: Schema) -> str:
    if "const" in node:
        return code(node["const"])
    if "enum" in node:
        return "[data type](#tensors)" if node["enum"] == _DTYPES else " or ".join(map(code, node["enum"]))
    if "pattern" in node:
        return _PATTERNS.get(node["pattern"], "text")
    if isinstance(node["type"], list):
        return ", ".join(_TYPES[name] for name in node["type"])
    bounds = " and ".join(f"{words} {_number(node[key])}" for key, words in _BOUNDS.items() if key in node)
    bounds = re.sub(r"at least (\S+) and at most ", r"\1 to ", bounds)
    between = "" if not bounds else " of " if node["type"] in ("array", "object") else ", "
    return f"{_TYPES[node['type']]}{between}{bounds}"


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)
