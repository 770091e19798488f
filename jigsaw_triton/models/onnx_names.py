"""Gives the inputs and outputs of ONNX models other names, without the package onnx.

Exporters use names such as `input.1` or `/layer/Gemm_output_0`, which graph.yaml cannot have. A copy of the model gets
further inputs and outputs with the new names, and an Identity for each that connects it to the old one. ONNX Runtime
removes these when it loads the model.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.models.interface import Interface
from jigsaw_triton.models.onnx_file import parsed, raw_fields
from jigsaw_triton.spec.words import NAME_PATTERN

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_CONSTANT, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_TENSOR_NAME = 8
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_VALUE_NAME = 1
_RESERVED = "JIGSAW_"
_LONGEST = 60


def new_names(interface: Interface, wanted: Mapping[str, str], where: str) -> dict[str, str]:
    """Returns the new names of a model's inputs and outputs that get one.

    Args:
        interface: Inputs and outputs of the model.
        wanted: Present name -> new name, as the user wants them. Names that graph.yaml cannot have get others too.
        where: Model, for messages.

    Raises:
        InputError: A wanted name is not valid or not unique, or the model has no such tensor.
    """
    present = [*(name for name in interface.inputs if name not in interface.optional), *interface.outputs]
    for old, new in wanted.items():
        if old not in present:
            raise InputError(f"the model has no '{old}'", where=where, hint=f"it has {', '.join(present)}")
        if not _valid(new):
            hint = "use a letter, followed by letters, digits, '_' and '-'"
            raise InputError(f"'{new}' is not a valid name", where=where, hint=hint)
    names = {old: wanted.get(old, old) for old in present}
    for old in present:
        if not _valid(names[old]):
            names[old] = _similar(old, "input" if old in interface.inputs else "output", names.values())
    if twice := [name for name in names.values() if [*names.values()].count(name) > 1]:
        raise InputError(f"two tensors would be called '{twice[0]}'", where=where, hint="choose another with --rename")
    return {old: new for old, new in names.items() if new != old}


def _valid(name: str) -> bool:
    return re.fullmatch(NAME_PATTERN, name) is not None and not name.startswith(_RESERVED)


def _similar(name: str, side: str, taken: Iterable[str]) -> str:
    """Returns a valid name that is similar to one that is not."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:_LONGEST]
    if not _valid(base):
        base = f"{side}_{base}".rstrip("_")[:_LONGEST]
    number, result = 1, base
    while result in {*taken}:
        number += 1
        result = f"{base}_{number}"
    return result


def write_renamed(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Writes a copy of a model whose inputs and outputs have other names.

    Args:
        source: ONNX file.
        target: File to write.
        names: Present name of an input or output -> new name.

    Raises:
        InputError: The file is not an ONNX model, or another tensor has one of the new names.
        OSError: The copy cannot be written.
    """
    content = parsed(source, lambda model: [_model_field(*field, names, str(source)) for field in raw_fields(model)])
    with target.open("wb") as file:
        file.writelines(part for parts in content for part in parts)


def _model_field(
    number: int, value: int | memoryview, raw: memoryview, names: Mapping[str, str], where: str
) -> list[memoryview | bytes]:
    """Returns a field of a model, in parts; that of the graph with the other names."""
    if number != _MODEL_GRAPH or isinstance(value, int):
        return [raw]
    first: list[bytes] = []
    kept: list[memoryview | bytes] = []
    last: list[bytes] = []
    taken: set[str] = set()
    for key, part, bytes_of in raw_fields(value):
        name = ""
        if key in (_GRAPH_INPUT, _GRAPH_OUTPUT) and not isinstance(part, int):
            name = _named(part, _VALUE_NAME)
            # An inner tensor keeps the present name, so no other tensor may take it.
            taken.add(name)
        if name in names and not isinstance(part, int):
            new = names[name]
            kept.append(_value_info(key, part, new))
            pair = (new, name) if key == _GRAPH_INPUT else (name, new)
            (first if key == _GRAPH_INPUT else last).append(_identity(*pair))
        else:
            kept.append(bytes_of)
        if key == _GRAPH_NODE and not isinstance(part, int):
            taken |= {_text(v) for n, v, _ in raw_fields(part) if n == _NODE_OUTPUT and not isinstance(v, int)}
        if key == _GRAPH_CONSTANT and not isinstance(part, int):
            taken.add(_named(part, _TENSOR_NAME))
    if clash := sorted(taken & {*names.values()}):
        hint = "choose another name with --rename"
        raise InputError(f"another tensor of the model is called '{clash[0]}'", where=where, hint=hint)
    parts = [*first, *kept, *last]
    return [_varint(_MODEL_GRAPH << 3 | 2), _varint(sum(map(len, parts))), *parts]


def _named(message: memoryview, field: int) -> str:
    """Returns the name of an input, an output or a constant, which is in a field of its message."""
    found = [value for number, value, _ in raw_fields(message) if number == field]
    return _text(found[-1]) if found and not isinstance(found[-1], int) else ""


def _value_info(number: int, value_info: memoryview, name: str) -> bytes:
    """Encodes an input or output with another name."""
    rest = b"".join(bytes(raw) for key, _, raw in raw_fields(value_info) if key != _VALUE_NAME)
    return _message(number, _message(_VALUE_NAME, name.encode()) + rest)


def _identity(given: str, made: str) -> bytes:
    """Encodes a node that copies a tensor."""
    tensors = _message(_NODE_INPUT, given.encode()) + _message(_NODE_OUTPUT, made.encode())
    return _message(_GRAPH_NODE, tensors + _message(_NODE_OPERATOR, b"Identity"))


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _text(value: memoryview) -> str:
    return bytes(value).decode()
