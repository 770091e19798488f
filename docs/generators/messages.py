"""Finds the messages of all errors in the code, with what each says to do."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from docs.generators.sources import ANY, Module, Texts

_BASE = "JigsawError"

_USAGE = frozenset({"UsageError", "BadParameter"})
"""Errors of click, which the command line raises."""

_USAGE_METHOD = "fail"
"""Method of click's contexts and types that raises such an error."""

_USAGE_HINT = "see the help of the command"

_ROW_ERROR = "_RowError"
"""Exception whose arguments, a message and a hint, become a mistake in a file."""

_REASONS = "reasons"
"""Name of lists of reasons why no plan is feasible."""

_REASON_HINT = "the error says which values are the nearest with which there is a plan"

_PAIRED = frozenset({"spec.explain", "planner.search.diagnosis", "api.export_input", "controller.fleet.agent_checks"})
"""Modules with functions that return messages and hints as pairs of texts."""

_INSIDE_TRITON = "runtime."
"""Prefix of the names of modules that run inside tritonserver, whose errors are answers to clients."""

_WORD = re.compile(r"[A-Za-z]{2,}(?= |…|:|$)")


@dataclass(frozen=True, slots=True)
class Message:
    """Message of an error.

    Attributes:
        module: Module below the package that reports the error.
        line: Line of the report.
        text: The message on one line, with `…` for each part that varies.
        hints: Advice that the error comes with. Empty if it has none.
    """

    module: str
    line: int
    text: str
    hints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reporter:
    """A class or function that reports an error.

    Attributes:
        message: Position of the message among the arguments.
        hint: Position of the hint; None if it can only be given by keyword.
        fixed: Hints that it adds itself.
    """

    message: int
    hint: int | None = None
    fixed: tuple[str, ...] = ()


def find_messages(modules: Mapping[str, Module]) -> list[Message]:
    """Returns the messages of all errors, in the order of modules and lines.

    Args:
        modules: All modules of the package, by name.
    """
    texts = Texts(modules)
    reporters = _reporters(modules, texts)
    found: list[Message] = []
    for module in modules.values():
        if not module.name.startswith(_INSIDE_TRITON):
            reports = sorted(_reports(module, reporters), key=lambda report: report[0])
            found += (message for report in reports for message in _resolved(*report, module, texts))
    return list(dict.fromkeys(found))


_Report = tuple[int, ast.expr, ast.expr | None, tuple[str, ...]]
"""Line, message, hint and hints that are added to each message."""


def _reports(module: Module, reporters: Mapping[str, _Reporter]) -> Iterator[_Report]:
    for node in module.nodes:
        match node:
            case ast.Call() if (reporter := _reporter(node, reporters)) and len(node.args) > reporter.message:
                hint = next((keyword.value for keyword in node.keywords if keyword.arg == "hint"), None)
                if hint is None and reporter.hint is not None and len(node.args) > reporter.hint:
                    hint = node.args[reporter.hint]
                yield node.lineno, node.args[reporter.message], hint, reporter.fixed
            case ast.FunctionDef(returns=ast.expr() as returns) if module.name in _PAIRED:
                if "tuple[str, str]" in ast.unparse(returns):
                    yield from _pairs(node)


def _pairs(function: ast.FunctionDef) -> Iterator[_Report]:
    """Yields the pairs of a message and a hint that a function returns."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Tuple(elts=[message, hint])) | ast.Yield(value=ast.Tuple(elts=[message, hint])):
                yield node.lineno, message, hint, ()


def _resolved(
    line: int, message: ast.expr, hint: ast.expr | None, fixed: tuple[str, ...], module: Module, texts: Texts
) -> Iterator[Message]:
    """Yields the messages of a report. If it has as many hints, each belongs to the message at its place."""
    messages = texts.of(message, module)
    hints = tuple(text for text in texts.of(hint, module) if text) or fixed
    paired = len(messages) == len(hints)
    for index, text in enumerate(messages):
        # A text with less than two words of its own passes on the message of another error.
        if len(_WORD.findall(text)) > 1:
            yield Message(module.name, line, " ".join(text.split()), hints[index : index + 1] if paired else hints)


def _reporter(call: ast.Call, reporters: Mapping[str, _Reporter]) -> _Reporter | None:
    match call:
        case ast.Call(func=ast.Attribute(attr=name), args=[ast.JoinedStr(), *_]) if name == _USAGE_METHOD:
            return _Reporter(0, fixed=(_USAGE_HINT,))
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="append")) if owner == _REASONS:
            return _Reporter(0, fixed=(_REASON_HINT,))
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return reporters.get(name)
    return None


def _reporters(modules: Mapping[str, Module], texts: Texts) -> dict[str, _Reporter]:
    """Returns the classes and functions that report errors, by name.

    These are the errors themselves, and everything with an argument or a field `message` that also has a `hint` or
    returns an error.
    """
    nodes = [(node, module) for module in modules.values() for node in module.nodes]
    errors = _errors(node for node, _ in nodes if isinstance(node, ast.ClassDef))
    found = {name: _Reporter(0, fixed=(_USAGE_HINT,)) for name in _USAGE}
    found |= {_ROW_ERROR: _Reporter(0, 1), **{name: _Reporter(0) for name in errors}}
    for node, module in nodes:
        match node:
            case ast.FunctionDef(name=name, args=args) if not name.startswith("__"):
                names = [arg.arg for arg in [*args.posonlyargs, *args.args] if arg.arg != "self"]
                returned = ast.unparse(node.returns) if node.returns is not None else ""
                if {"message", "hint"} <= set(names):
                    found[name] = _Reporter(names.index("message"), names.index("hint"))
                elif "message" in names and (returned in errors or "hint" in {arg.arg for arg in args.kwonlyargs}):
                    found[name] = _Reporter(names.index("message"), fixed=_own_hints(node, module, texts))
            case ast.ClassDef(name=name, body=body):
                annotated = [line.target for line in body if isinstance(line, ast.AnnAssign)]
                fields = [target.id for target in annotated if isinstance(target, ast.Name)]
                if {"message", "hint"} <= set(fields):
                    found[name] = _Reporter(fields.index("message"), fields.index("hint"))
    return found


def _errors(classes: Iterable[ast.ClassDef]) -> set[str]:
    """Returns the names of the base of all errors and of its subclasses."""
    bases = {node.name: {ast.unparse(base) for base in node.bases} for node in classes}
    found = {_BASE}
    while more := {name for name, its in bases.items() if its & found} - found:
        found |= more
    return found


def _own_hints(function: ast.FunctionDef, module: Module, texts: Texts) -> tuple[str, ...]:
    """Returns the hints that a function adds to the message that it gets."""
    keywords = (keyword for node in ast.walk(function) if isinstance(node, ast.Call) for keyword in node.keywords)
    hints = (hint for word in keywords if word.arg == "hint" for hint in texts.of(word.value, module))
    return tuple(dict.fromkeys(hint for hint in hints if hint != ANY))
