"""Pydantic's findings in the user's words: what is wrong with an entry, and what would be right."""

from typing import Any

import yaml
from pydantic_core import ErrorDetails

from jigsaw_triton.spec.json_schema import subschema
from jigsaw_triton.spec.schema import IMAGE_PATTERN
from jigsaw_triton.spec.source import Path, dotted
from jigsaw_triton.spec.words import nearest, shown

_DTYPES = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT32": "FP32",
    "FLOAT64": "FP64",
    "HALF": "FP16",
    "DOUBLE": "FP64",
    "INT": "INT64",
    "LONG": "INT64",
    "STR": "BYTES",
    "STRING": "BYTES",
    "OBJECT": "BYTES",
    "BOOLEAN": "BOOL",
}
"""Names of data types elsewhere -> Triton's."""

_FORMS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
}

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}

NAME_FORM = "a name is a letter, then up to 63 letters, digits, '_' or '-'"


def explain(error: ErrorDetails, path: Path, schema: dict[str, Any]) -> tuple[str, str]:
    """What is wrong, and what would be right.

    Args:
        error: Of pydantic.
        path: Of the entry (of the absent entry where one is missing).
        schema: JSON Schema of the document.
    """
    kind = error["type"]
    entry = dotted(path)
    here = subschema(schema, path)
    value = error["input"]
    context = error.get("ctx", {})
    if kind == "missing":
        return f"{dotted(path[:-1])} lacks {path[-1]}", f"add {_example(path, here)}"
    if kind == "extra_forbidden":
        known = subschema(schema, path[:-1]).get("properties", {})
        return f"unknown key '{path[-1]}' in {dotted(path[:-1])}", nearest(str(path[-1]), known, "known keys")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{entry} is {shown(value)}", f"it must be {words} {_number(context[key])}"
    if kind in ("too_short", "too_long"):
        return _length(entry, kind, context, f"write {_example(path, here)}")
    if kind == "string_pattern_mismatch" and context["pattern"] == IMAGE_PATTERN:
        return f"{entry} is {shown(value)}, which names no image", f"write {_example(path, here)}"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} is not a valid name ({entry})", NAME_FORM
    if kind == "literal_error":
        return f"{entry} is {shown(value)}", _choice(value, here)
    if kind == "dimension":
        return f"{entry} is {shown(value)}", error["msg"]
    if path and isinstance(path[-1], int) and "properties" not in here:
        path = path[:-1]
    return f"{entry} is {shown(value)}, not {_form(here)}", f"write {_example(path, subschema(schema, path))}"


def _length(entry: str, kind: str, context: dict[str, Any], example: str) -> tuple[str, str]:
    if kind == "too_short":
        return f"{entry} is empty", example
    actual = context.get("actual_length")
    many = f"{actual} entries" if actual else "too many entries"
    return f"{entry} has {many}", f"at most {context['max_length']} are supported"


def _choice(value: Any, schema: dict[str, Any]) -> str:
    choices = schema.get("enum", [schema.get("const")])
    if len(choices) == 1:
        return f"write {choices[0]}"
    word = str(value).upper().removeprefix("TYPE_")
    if "FP32" in choices and word in (*_DTYPES, *choices):
        return f"did you mean '{_DTYPES.get(word, word)}'?"
    return nearest(str(value), choices, "known values")


def _form(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object")
    return " or ".join(_FORMS[item] for item in ([kind] if isinstance(kind, str) else kind))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _example(path: Path, schema: dict[str, Any]) -> str:
    """`latency_ms: 250`, or the value alone for an item of a list."""
    value = schema["examples"][0] if "examples" in schema else _example_of(schema)
    named = {path[-1]: value} if path and isinstance(path[-1], str) else value
    text = yaml.safe_dump(named, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("\n...\n").strip()
    return text[1:-1] if isinstance(named, dict) and path else text


def _example_of(schema: dict[str, Any]) -> Any:
    """An example of an entry that has none of its own."""
    if "default" in schema and schema["default"] is not None:
        return schema["default"]
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    properties = schema.get("properties", {})
    if properties:
        wanted = schema.get("required", properties)
        return {key: properties[key]["examples"][0] for key in wanted if properties[key].get("examples")}
    return {"integer": 1, "number": 1.0, "string": "text"}.get(schema.get("type", ""), {})
