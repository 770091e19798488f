"""Translates pydantic's errors into messages in the terms of the user's file."""

from typing import Any

import yaml
from pydantic_core import ErrorDetails

from jigsaw_triton.spec.entries import ADDRESS_PATTERN, IMAGE_PATTERN
from jigsaw_triton.spec.json_schema import subschema
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
"""Data type name of other frameworks -> Triton's name."""

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

NAME_FORM = "a name starts with a letter, followed by up to 63 letters, digits, '_' or '-'"


def explain(error: ErrorDetails, path: Path, schema: dict[str, Any]) -> tuple[str, str]:
    """Returns a message that says what is wrong with an entry, and a hint that says how to correct it.

    Args:
        error: Error that pydantic reported.
        path: Path of the entry, or of the absent entry if a required one is missing.
        schema: JSON Schema of the document.
    """
    kind = error["type"]
    entry = dotted(path)
    entry_schema = subschema(schema, path)
    value = error["input"]
    context = error.get("ctx", {})
    if kind == "missing":
        return f"missing key '{path[-1]}' in {dotted(path[:-1])}", _suggestion("add", path, entry_schema)
    if kind == "extra_forbidden":
        known = subschema(schema, path[:-1]).get("properties", {})
        return f"unknown key '{path[-1]}' in {dotted(path[:-1])}", nearest(str(path[-1]), known, "known keys")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{entry} is {shown(value)}", f"it must be {words} {_number(context[key])}"
    if kind in ("too_short", "too_long"):
        return _length(entry, kind, context, _suggestion("write", path, entry_schema))
    if kind == "string_pattern_mismatch" and context["pattern"] == IMAGE_PATTERN:
        return f"{entry} is {shown(value)}, not a container image", _suggestion("write", path, entry_schema)
    if kind == "string_pattern_mismatch" and context["pattern"] == ADDRESS_PATTERN:
        return f"{entry} is {shown(value)}, not a host and a port", _suggestion("write", path, entry_schema)
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} is not a valid name ({entry})", NAME_FORM
    if kind == "literal_error":
        return f"{entry} is {shown(value)}", _choice(value, entry_schema)
    if kind == "dimension":
        return f"{entry} is {shown(value)}", error["msg"]
    if path and isinstance(path[-1], int) and "properties" not in entry_schema:
        path = path[:-1]
    message = f"{entry} must be {_form(entry_schema)}, not {shown(value)}"
    return message, _suggestion("write", path, subschema(schema, path))


def _length(entry: str, kind: str, context: dict[str, Any], example: str) -> tuple[str, str]:
    if kind == "too_short":
        return f"{entry} must not be empty", example
    actual = context.get("actual_length")
    many = f"{actual} entries" if actual else "too many entries"
    return f"{entry} has {many}", f"at most {context['max_length']} are supported"


def _choice(value: Any, schema: dict[str, Any]) -> str:
    choices = schema.get("enum", [schema.get("const")])
    if len(choices) == 1:
        return f"it must be {choices[0]}"
    word = str(value).upper().removeprefix("TYPE_")
    if "FP32" in choices and word in (*_DTYPES, *choices):
        return f"did you mean '{_DTYPES.get(word, word)}'?"
    return nearest(str(value), choices, "known values")


def _form(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object")
    return " or ".join(_FORMS[item] for item in ([kind] if isinstance(kind, str) else kind))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _suggestion(verb: str, path: Path, schema: dict[str, Any]) -> str:
    """Returns a hint such as `add, for example, latency_ms: 250`, or `add kind: Cluster` if no other value is valid."""
    verb = verb if "const" in schema else f"{verb}, for example,"
    return f"{verb} {_example(path, schema)}"


def _example(path: Path, schema: dict[str, Any]) -> str:
    """Returns an example as YAML: `latency_ms: 250`, or the value alone for an item of a list."""
    value = schema["examples"][0] if "examples" in schema else _example_of(schema)
    named = {path[-1]: value} if path and isinstance(path[-1], str) else value
    text = yaml.safe_dump(named, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("\n...\n").strip()
    return text[1:-1] if isinstance(named, dict) and path else text


def _example_of(schema: dict[str, Any]) -> Any:
    """Makes up an example for an entry whose schema has none."""
    if "default" in schema and schema["default"] is not None:
        return schema["default"]
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    properties = schema.get("properties", {})
    if properties:
        wanted = schema.get("required", properties)
        return {key: properties[key]["examples"][0] for key in wanted if properties[key].get("examples")}
    return {"integer": 1, "number": 1.0, "string": "text"}.get(schema.get("type", ""), {})
