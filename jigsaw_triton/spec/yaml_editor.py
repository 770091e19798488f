"""Adds entries to a YAML text or replaces them, and keeps its comments and its layout."""

from typing import Any

import yaml

from jigsaw_triton.errors import SpecError
from jigsaw_triton.spec.source import Path, dotted
from jigsaw_triton.spec.yaml_loader import parse_yaml
from jigsaw_triton.spec.yaml_writer import Inline, dump_inline, dump_yaml


def with_entry(text: str, path: Path, value: Any, *, comment: str = "") -> str:
    """Returns the text with a further entry, at the end of the mapping or the list that is to contain it.

    Args:
        text: YAML document that `parse_yaml` accepts.
        path: Path of the new entry. For an item of a list, the last element is the number of items.
        value: Value of the entry.
        comment: Comment on the line above the entry; none if empty. It has no line breaks.

    Raises:
        ValueError: The layout of the text is such that the entry cannot be added.
    """
    holder = _node(text, path[:-1])
    key = path[-1]
    if holder.flow_style:
        added = dump_inline(value) if isinstance(key, int) else f"{dump_inline(key)}: {dump_inline(value)}"
        indent = " " * (holder.start_mark.column + 1)
        above = f"\n{indent}# {comment}\n{indent}" if comment else ""
        at, new = (holder.start_mark.index + 1, above + added)
        if holder.value:
            at, new = _end(holder.value[-1]).index, f",{above or ' '}{added}"
    else:
        end = _end(holder.value[-1])
        at = text.find("\n", end.index)
        at = len(text) if at < 0 else at - (text[at - 1] == "\r")
        if not isinstance(key, int):
            lines = dump_yaml({key: value}).rstrip("\n")
        elif isinstance(value, dict) and not isinstance(value, Inline):
            lines = "- " + dump_yaml(value).rstrip("\n").replace("\n", "\n  ")
        else:
            lines = f"- {dump_inline(value)}"
        lines = f"# {comment}\n{lines}" if comment else lines
        indent = " " * holder.start_mark.column
        new = "".join(f"\n{indent}{line}" for line in lines.split("\n"))
    newline = "\r\n" if "\r\n" in text else "\n"
    result = text[:at] + new.replace("\n", newline) + text[at:]
    _check(text, result, path, value)
    return result


def with_value(text: str, path: Path, value: Any) -> str:
    """Returns the text with another value of an entry, on one line. It is added if there is none.

    Args:
        text: YAML document that `parse_yaml` accepts.
        path: Path of the entry.
        value: New value.

    Raises:
        ValueError: The layout of the text is such that the entry cannot be written.
    """
    node = _found(text, path)
    if node is None:
        return with_entry(text, path, value)
    begin, end = node.start_mark.index, _end(node).index
    # The empty value of a key begins right after the colon, so a space must be inserted.
    result = text[:begin] + " " * (begin == end) + dump_inline(value) + text[end:]
    _check(text, result, path, value)
    return result


def _check(before: str, after: str, path: Path, value: Any) -> None:
    """Checks that the entry is the only difference between two texts."""
    expected = parse_yaml(before, "").data
    holder = expected
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(path[-1], int):
        holder[path[-1] : path[-1] + 1] = [value]
    else:
        holder[path[-1]] = value
    try:
        same = parse_yaml(after, "").data == expected
    except SpecError:
        same = False
    if not same:
        raise ValueError(f"{dotted(path)} cannot be added to this layout")


def _node(text: str, path: Path) -> yaml.CollectionNode:
    """Returns the node of a mapping or a list."""
    node = _found(text, path)
    if node is None:
        raise ValueError(f"there is no {dotted(path)}")
    if not isinstance(node, yaml.CollectionNode) or not (node.flow_style or node.value):
        raise ValueError(f"{dotted(path)} is not a mapping or a list")
    return node


def _found(text: str, path: Path) -> yaml.Node | None:
    """Returns the node of an entry; None if there is none."""
    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    for key in path:
        children = list(node.value) if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            found = [child for name, child in children if name.value == key]
        else:
            found = children[key : key + 1] if isinstance(key, int) else []
        if not found:
            return None
        node = found[0]
    return node


def _end(entry: yaml.Node | tuple[yaml.Node, yaml.Node]) -> yaml.Mark:
    """Returns the end of an entry's text. The end of a block is that of its last entry, before comments that follow."""
    node = entry[1] if isinstance(entry, tuple) else entry
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return node.end_mark
