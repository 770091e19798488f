"""Checks that descriptions name their subject, and that no text uses words that the project avoids."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (
    "jigsaw_triton",
    "benchmarks",
    "console",
    "demo",
    "docs",
    "ensembles",
    "model_repository_templates",
    "native",
    "tests",
)
SKIPPED = frozenset({"_share", "_native", "__pycache__", "corpus", "node_modules"})

OPENING = re.compile(
    r"(?:Of|For which|For what|For whom|Since when|Until when|What|Whether|Likewise|The same|As much|Those|Who|Whose"
    r"|Which|By what|In which|On which|Where|When|How)\b(?! to\b)",
)
"""A description that begins so names no subject. "How to" and "Where to" are titles."""

AVOIDED = re.compile(r"\b(?:told|tells|telling|[Ll]ikewise|as good as none|to be had)\b")
"""Words for which the field has better ones: reported, says, also, zero, available."""

ARGUMENT = re.compile(r"^ *[\w.*`]+(?: \([^)]*\))?: +(.*)$")


def files(*suffixes: str) -> Iterator[Path]:
    for part in PYTHON:
        for path in sorted((ROOT / part).rglob("*")):
            if path.suffix in suffixes and not SKIPPED & set(path.parts):
                yield path


def descriptions(text: str) -> Iterator[tuple[int, str]]:
    """(line, description) of each docstring, attribute docstring and item of its Args."""
    for node in ast.walk(ast.parse(text)):
        for statement in getattr(node, "body", ()) if isinstance(getattr(node, "body", None), list) else ():
            if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
                continue
            said = statement.value.value
            if not isinstance(said, str):
                continue
            yield statement.lineno, said
            args = False
            for number, line in enumerate(said.splitlines()):
                if re.match(r"^ *(Args|Attributes|Raises|Returns|Yields):$", line):
                    args = line.strip() in ("Args:", "Attributes:")
                elif args and (found := ARGUMENT.match(line)):
                    yield statement.lineno + number, found[1]


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def python_faults(text: str) -> Iterator[tuple[int, str]]:
    for line, said in descriptions(text):
        if OPENING.match(said):
            yield line, said.splitlines()[0]
        elif found := AVOIDED.search(said):
            yield line + said[: found.start()].count("\n"), said.splitlines()[said[: found.start()].count("\n")]
    # Most files have no such word, and to tokenize all of them takes seconds.
    for line, said in comments(text) if AVOIDED.search(text) else ():
        if AVOIDED.search(said):
            yield line, said


def cpp_faults(text: str) -> Iterator[tuple[int, str]]:
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("//")[2].strip()
        if said and ((not before and OPENING.match(said)) or AVOIDED.search(said)):
            yield number, said
        before = said


def markdown_faults(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if AVOIDED.search(line):
            yield number, line


def all_faults() -> list[str]:
    found = []
    for path in files(".py"):
        if path != Path(__file__):
            found += [f"{path.relative_to(ROOT)}:{n}: {said}" for n, said in python_faults(path.read_text())]
    for path in files(".cc", ".h"):
        found += [f"{path.relative_to(ROOT)}:{n}: {said}" for n, said in cpp_faults(path.read_text())]
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *files(".md")]
    for path in pages:
        found += [f"{path.relative_to(ROOT)}:{n}: {said}" for n, said in markdown_faults(path.read_text())]
    return found


def test_descriptions_name_their_subject() -> None:
    assert not all_faults()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"""Of the gateway."""', ["Of the gateway."]),
        ('"""Address of the gateway."""', []),
        ('class A:\n    x: int\n    """Since when it waits."""', ["Since when it waits."]),
        ('def f(a):\n    """Adds.\n\n    Args:\n        a: Of the gateway.\n    """', ["Of the gateway."]),
        ("# It is told so.", ["It is told so."]),
        ('"""How to add."""', []),
    ],
)
def test_faults_of_python_are_found(text: str, said: list[str]) -> None:
    assert [line for _, line in python_faults(text)] == said


def test_faults_of_cpp_and_markdown_are_found() -> None:
    assert list(cpp_faults("int a;  // Of the queue\n// More\n// Of it\n")) == [(1, "Of the queue")]
    assert list(markdown_faults("a\nIt tells so.\n")) == [(2, "It tells so.")]
