"""Files of python steps: read, and looked at for what can be known of them without running them."""

import ast
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jigsaw_triton.errors import SpecError
from jigsaw_triton.spec.files import load_text

LIMIT_BYTES = 1024 * 1024
FUNCTION = "step"
"""What a step's file defines."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the function is called with, by name.

    Attributes:
        line: Of its definition.
        names: That it takes.
        needed: Those of them that have no default.
        any_name: Whether it takes others, too (`**inputs`).
    """

    line: int
    names: tuple[str, ...]
    needed: tuple[str, ...]
    any_name: bool


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a file.

    Attributes:
        line: Where; 0 for the file as a whole.
        message: What.
        hint: What would be right.
    """

    line: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class StepFile:
    """A step's file.

    Attributes:
        source: Its text.
        parameters: Of its function; None where it has none that can be called.
        flaws: What is wrong with it.
    """

    source: str = ""
    parameters: Parameters | None = None
    flaws: tuple[Flaw, ...] = ()


def read_step(path: Path) -> StepFile:
    """Reads a file that is there."""
    try:
        return look_at(load_text(path, limit_bytes=LIMIT_BYTES))
    except SpecError as error:
        return StepFile(flaws=tuple(Flaw(d.line, d.message, d.hint) for d in error.diagnostics))


def look_at(source: str) -> StepFile:
    """What can be known of a step's code: whether it is Python, what its function takes, whether its imports exist."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of an escape that Python does not know: it is no mistake yet
            module = ast.parse(source)
            # Finds what the tree does not show, such as a return outside of a function; runs nothing.
            compile(module, FUNCTION, "exec", dont_inherit=True)
    except SyntaxError as error:
        return StepFile(source, None, (Flaw(error.lineno or 0, f"this is not Python ({error.msg})", ""),))
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "nested too deeply"  # Python's parser says nothing of it
        return StepFile(source, None, (Flaw(0, f"this is not Python ({reason})", ""),))
    flaws = list(_missing_modules(module))
    # The last is the one that counts.
    defined = next((n for n in reversed(module.body) if getattr(n, "name", None) == FUNCTION), None)
    if not isinstance(defined, ast.FunctionDef):
        hint = f"define it: def {FUNCTION}(INPUT): return {{'OUTPUT': ...}}"
        if isinstance(defined, ast.AsyncFunctionDef):
            hint = "write def, not async def: each call has a thread of its own"
        flaws.append(Flaw(getattr(defined, "lineno", 0), f"there is no function {FUNCTION}", hint))
        return StepFile(source, None, tuple(flaws))
    if defined.args.posonlyargs:
        flaws.append(Flaw(defined.lineno, f"{FUNCTION} is called by names, not by position", "remove the '/'"))
    return StepFile(source, _parameters(defined), tuple(flaws))


def _parameters(function: ast.FunctionDef) -> Parameters:
    args = function.args
    last = args.args[len(args.args) - len(args.defaults) :]
    optional = {a.arg for a in last} | {
        a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is not None
    }
    names = tuple(a.arg for a in (*args.args, *args.kwonlyargs))
    needed = tuple(name for name in names if name not in optional)
    return Parameters(function.lineno, names, needed, args.kwarg is not None)


def _missing_modules(module: ast.Module) -> Iterator[Flaw]:
    """Imports at the top of the file, which run when it is loaded; not those under `try` or `if`, or in functions."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield Flaw(node.lineno, "a step has no package to import from", _ALONE)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            for top in dict.fromkeys(name.partition(".")[0] for name in modules):
                if not _exists(top):
                    yield Flaw(node.lineno, f"there is no module {top!r}", _ALONE)


_ALONE = "a step is one file: it imports what is installed beside jigsaw-triton, not files beside it"


def _exists(module: str) -> bool:
    """Whether Python finds a module of this name; finding one on top runs none of it."""
    try:
        return module in sys.builtin_module_names or find_spec(module) is not None
    except ValueError:  # one that is being imported, and says nothing of where it came from
        return True
