"""Reads the file of a variant that is written in Python, without running it."""

import ast
import warnings
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.spec.files import load_text

CLASS = "Model"
"""Name of the class that the file defines."""

_LIMIT_BYTES = 16 * 1024 * 1024


def read_python(path: Path) -> None:
    """Checks the syntax of the file, and that it defines a class `Model` or imports one.

    Raises:
        InputError: The file cannot be read, is not Python, or defines no such class.
    """
    source = load_text(path, limit_bytes=_LIMIT_BYTES)
    try:
        with warnings.catch_warnings(action="ignore"):  # Unknown escape sequences cause a warning, not yet an error.
            module = ast.parse(source)
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise InputError(f"this is not valid Python ({error.msg})", where=where, hint="correct the line") from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "nested too deeply"
        raise InputError(
            f"this is not valid Python ({reason})", where=str(path), hint="save the file as Python source"
        ) from error
    names = {name for node in ast.walk(module) for name in _bound(node)}
    if not names & {CLASS, "*"}:
        raise InputError(
            f"the file defines no class {CLASS}",
            where=str(path),
            hint="define it, with __init__(self, folder, parameters, threads) and __call__(self, inputs)",
        )


def _bound(node: ast.AST) -> list[str]:
    """Returns the names that a statement may define."""
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            return [node.name]
        case ast.ImportFrom() | ast.Import():
            return [alias.asname or alias.name for alias in node.names]
        case ast.Name(ctx=ast.Store()):
            return [node.id]
        case _:
            return []
