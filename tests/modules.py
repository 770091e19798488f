"""Reads the modules of the package and their imports. Imports inside functions count too."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = "jigsaw_triton"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

Sources = Mapping[str, str]
"""Module name below the package (`gpus.layouts`) -> its text."""


@cache
def sources() -> Sources:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sorted(ROOT.rglob("*.py"))
        if path != ROOT / "__init__.py" and "_share" not in path.parts
    }


@cache
def uses(text: str) -> tuple[ast.Import | ast.ImportFrom | ast.Call, ...]:
    """Returns the imports and calls in a module, which many tests look at."""
    return tuple(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call))


def imports(module: str, text: str) -> Iterator[tuple[str, str | None]]:
    """Yields all imports of a module: absolute module names, and the name imported from each."""
    for node in uses(text):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = f"{PACKAGE}.{module}".split(".")[: -node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield name, alias.name


def own_imports(module: str, text: str, modules: Iterable[str]) -> set[str]:
    """Returns the modules of the package that a module imports, by their names below the package."""
    found = set()
    for name, taken in imports(module, text):
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            continue
        below = name.removeprefix(PACKAGE).removeprefix(".")
        submodule = ".".join(filter(None, (below, taken)))
        if submodule in modules or below:
            found.add(submodule if submodule in modules else below)
    return found


def reached(start: str, texts: Sources) -> set[str]:
    """Returns a module and all modules of the package that it imports, directly or indirectly."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in found and module in texts:
            found.add(module)
            waiting += own_imports(module, texts[module], texts)
    return found
