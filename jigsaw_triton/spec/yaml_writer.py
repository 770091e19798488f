"""Writing YAML that `yaml_loader` reads back as the same values."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from jigsaw_triton.spec.yaml_loader import plain_scalar

_COLUMNS = 120
_EXACT_INTEGERS = 1e15
"""Floats below this that are whole are written without a fraction."""


class Inline(dict[str, Any]):
    """A mapping that is written on one line: `{dtype: FP32, shape: [1]}`."""


class Block(str):
    """A text of several lines that is written as such, where YAML allows it."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        # The loader refuses anchors, also for a value that occurs twice.
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML quotes what YAML 1.1 reads as something else; the loader reads YAML 1.2, where `1e3` is a number.
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if _is_plain(value) else '"')


def _block(dumper: yaml.SafeDumper, value: Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style="|")


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    if value.is_integer() and abs(value) < _EXACT_INTEGERS:
        return dumper.represent_int(int(value))
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))


def _inline(dumper: yaml.SafeDumper, value: Inline) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Block, _block)
_Dumper.add_representer(float, _number)
_Dumper.add_representer(Inline, _inline)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Returns a document as YAML text, its entries in the order given.

    Args:
        data: Mappings with text keys, lists, text, finite numbers, booleans and None; an `Inline` takes one line, and a
            `Block` one for each of its lines.
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_COLUMNS)


def dump_inline(data: Any) -> str:
    """Returns a value as YAML text on one line: `{dtype: FP32, shape: [1]}`."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def _is_plain(text: str) -> bool:
    """Returns True if the loader reads the unquoted text as this text."""
    try:
        return isinstance(plain_scalar(text), str)
    except ValueError:
        return False
