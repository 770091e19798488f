"""A strict YAML loader that keeps line numbers: YAML 1.2's core schema without anchors, tags and duplicate keys.

The composer consumes PyYAML's events with a stack of its own, so that it enforces the limits before it builds anything.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.spec.source import Path, SourceMap

LIMIT_BYTES = 1024 * 1024
LIMIT_DEPTH = 32
LIMIT_NODES = 50_000

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_INT = 18
"""Largest number of digits of an integer: every integer of that length fits 64 bits."""

_PLAIN_WORDS = (
    (r"found character '\\t'", "a tab is used where YAML allows only spaces", "indent with spaces"),
    (
        r"mapping values are not allowed here",
        "unexpected ':', because no key can stand here",
        "check the indentation, and quote text that contains ': '",
    ),
    (r"could not find expected ':'", "a key is not followed by ':'", "write key: value"),
    (
        r"unacceptable character|special characters are not allowed",
        "the file contains a control character",
        "remove it",
    ),
)
"""Pattern of a message of PyYAML, our message, and a hint."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A YAML document.

    Attributes:
        data: Content of the document: dicts with str keys, lists, str, int, float, bool and None.
        source: Lines of the entries.
        problems: Mistakes that did not prevent the rest from being read.
        unusable: Paths of entries whose value in `data` differs from the file because of a mistake.
    """

    data: Any
    source: SourceMap
    problems: tuple[Diagnostic, ...] = ()
    unusable: frozenset[Path] = frozenset()


def parse_yaml(text: str, file: str) -> Parsed:
    """Reads one YAML document.

    Args:
        text: Text of the document. The caller must ensure that it is no longer than `LIMIT_BYTES`.
        file: Name of the file, for messages.

    Raises:
        SpecError: The text is not valid YAML, is empty, contains several documents, or exceeds the limits on depth or
            nodes.
    """
    composer = _Composer(file)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.take(event)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError([_plain(file, line, str(error))]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SpecError([_plain(file, mark.line + 1 if mark else 0, error.problem or str(error))]) from error
    return composer.result()


def _plain(file: str, line: int, problem: str) -> Diagnostic:
    for pattern, message, hint in _PLAIN_WORDS:
        if re.search(pattern, problem):
            return Diagnostic(file, line, message, hint)
    first = problem.splitlines()[0]
    return Diagnostic(file, line, f"this is not valid YAML: {first}", "check brackets, quotes and indentation")


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is being read."""

    container: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None
    ignored: bool = False


@dataclass(slots=True)
class _Composer:
    file: str
    root: Any = None
    documents: int = 0
    nodes: int = 0
    stack: list[_Frame] = field(default_factory=list)
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    unusable: set[Path] = field(default_factory=set)

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.fail(line, "the file contains more than one document", "keep one, without a second '---'")
        elif isinstance(event, yaml.AliasEvent):
            self.note(line, f"alias *{event.anchor}: anchors and aliases are not supported", "write the value out")
            self.put(None, line, usable=False)
        elif isinstance(event, yaml.NodeEvent):
            self.node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.stack.pop()

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        self.nodes += 1
        if self.nodes > LIMIT_NODES:
            self.fail(line, f"the file has more than {LIMIT_NODES} values", "split it, or remove what is not needed")
        if event.anchor is not None:
            self.note(line, f"anchor &{event.anchor}: anchors and aliases are not supported", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.note(line, f"tag {tag}: tags are not supported", "write plain text, numbers, lists and mappings")
        if isinstance(event, yaml.ScalarEvent):
            self.scalar(event, line)
        else:
            self.begin({} if isinstance(event, yaml.MappingStartEvent) else [], line)

    def scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if _UNPRINTABLE.search(event.value):
            self.fail(line, "the text contains a control character or half a surrogate pair", "remove it")
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.container, dict) and frame.key is None:
            self.start_entry(frame, event.value, line)
            return
        if event.style is not None:
            self.put(event.value, line)
            return
        try:
            self.put(plain_scalar(event.value), line)
        except ValueError as error:
            self.note(line, f"{event.value[:40]} {error}", "write a finite number, or quote it to make it text")
            self.put(None, line, usable=False)

    def start_entry(self, frame: _Frame, key: str, line: int) -> None:
        path = (*frame.path, key)
        frame.key = key
        frame.ignored = key in frame.container
        if frame.ignored:
            self.note(line, f"duplicate key '{key}'", f"keep one; the first is on line {self.lines[path]}")
        else:
            self.lines[path] = line

    def begin(self, container: dict[str, Any] | list[Any], line: int) -> None:
        if len(self.stack) >= LIMIT_DEPTH:
            self.fail(line, f"values are nested more than {LIMIT_DEPTH} levels deep", "flatten them")
        self.stack.append(_Frame(container, self.put(container, line)))

    def put(self, value: Any, line: int, *, usable: bool = True) -> Path:
        """Stores a value in the innermost open mapping or list; returns its path."""
        frame = self.stack[-1] if self.stack else None
        if frame is None:
            self.root = value
            path: Path = ()
        elif isinstance(frame.container, list):
            path = (*frame.path, len(frame.container))
            frame.container.append(value)
        elif frame.key is None:
            self.fail(line, "a key must be plain text", "write key: value")
        elif frame.ignored:
            path = (*frame.path, f"{frame.key} (repeated)")
            frame.key = None
        else:
            path = (*frame.path, frame.key)
            frame.container[frame.key] = value
            frame.key = None
        self.lines.setdefault(path, line)
        if not usable:
            self.unusable.add(path)
        return path

    def note(self, line: int, message: str, hint: str) -> None:
        self.problems.append(Diagnostic(self.file, line, message, hint))

    def fail(self, line: int, message: str, hint: str) -> NoReturn:
        self.note(line, message, hint)
        raise SpecError(self.problems)

    def result(self) -> Parsed:
        if not self.documents:
            self.fail(0, "the file is empty", "start from an example: `jigsaw-triton init DIR`")
        return Parsed(self.root, SourceMap(self.file, self.lines), tuple(self.problems), frozenset(self.unusable))


def plain_scalar(text: str) -> str | int | float | bool | None:
    """Returns the value of an unquoted scalar.

    Raises:
        ValueError: The scalar is a number that cannot be represented. The message is a predicate, such as "is not a
            finite number", that the caller puts after the number.
    """
    if _NULL.fullmatch(text):
        return None
    if match := _BOOL.fullmatch(text):
        return match[1] is not None
    if _INT.fullmatch(text):
        if len(text.lstrip("+-")) > _LONGEST_INT:
            raise ValueError("is too large")
        return int(text, 0) if text.startswith("0o") or text.startswith("0x") else int(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("is not a finite number")
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("is too large")
        return value
    return text
