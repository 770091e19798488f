"""Reads the files of Python steps and checks them without running them."""

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
"""Name of the function that a step's file defines."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a step's function.

    Attributes:
        line: Line of the function's definition.
        names: Names of the parameters.
        required: Names of the parameters that have no default.
        any_name: True if the function accepts further names (`**inputs`).
    """

    line: int
    names: tuple[str, ...]
    required: tuple[str, ...]
    any_name: bool


@dataclass(frozen=True, slots=True)
class Flaw:
    """A mistake in a step's file.

    Attributes:
        line: Line of the mistake; 0 if it concerns the file as a whole.
        message: Description of what is wrong.
        hint: Advice on how to correct it; may be empty.
    """

    line: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class StepFile:
    """A step's file.

    Attributes:
        source: Text of the file.
        parameters: Parameters of its function; None if the file defines no such function.
        flaws: Mistakes in the file.
    """

    source: str = ""
    parameters: Parameters | None = None
    flaws: tuple[Flaw, ...] = ()


def read_step(path: Path) -> StepFile:
    """Reads and checks a file; one that cannot be read is a flaw of the result."""
    try:
        return parse_step(load_text(path, limit_bytes=LIMIT_BYTES))
    except SpecError as error:
        return StepFile(flaws=tuple(Flaw(d.line, d.message, d.hint) for d in error.diagnostics))


def parse_step(source: str) -> StepFile:
    """Checks a step's code without running it: its syntax, the parameters of its function, and its imports."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Unknown escape sequences cause a warning, not yet an error.
            module = ast.parse(source)
            # Finds errors that parsing does not, such as a return outside of a function. Runs nothing.
            compile(module, FUNCTION, "exec", dont_inherit=True)
    except SyntaxError as error:
        return StepFile(
            source, None, (Flaw(error.lineno or 0, f"this is not valid Python ({error.msg})", "correct it"),)
        )
    except (ValueError, RecursionError, MemoryError) as error:
        # The message of the parser's MemoryError differs between releases of Python, and 3.11 has none.
        reason = "nested too deeply" if isinstance(error, MemoryError) else str(error)
        return StepFile(source, None, (Flaw(0, f"this is not valid Python ({reason})", "correct it"),))
    flaws = list(_missing_modules(module))
    # A later definition of the same name replaces an earlier one.
    defined = next((n for n in reversed(module.body) if getattr(n, "name", None) == FUNCTION), None)
    if not isinstance(defined, ast.FunctionDef):
        hint = f"define it: def {FUNCTION}(INPUT): return {{'OUTPUT': ...}}"
        if isinstance(defined, ast.AsyncFunctionDef):
            hint = "write def instead of async def: each call runs in a thread of its own"
        flaws.append(Flaw(getattr(defined, "lineno", 0), f"there is no function {FUNCTION}", hint))
        return StepFile(source, None, tuple(flaws))
    if defined.args.posonlyargs:
        message = f"{FUNCTION} has positional-only parameters, but it is called with keyword arguments"
        flaws.append(Flaw(defined.lineno, message, "remove the '/'"))
    return StepFile(source, _parameters(defined), tuple(flaws))


def _parameters(function: ast.FunctionDef) -> Parameters:
    args = function.args
    last = args.args[len(args.args) - len(args.defaults) :]
    optional = {a.arg for a in last} | {
        a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is not None
    }
    names = tuple(a.arg for a in (*args.args, *args.kwonlyargs))
    required = tuple(name for name in names if name not in optional)
    return Parameters(function.lineno, names, required, args.kwarg is not None)


def _missing_modules(module: ast.Module) -> Iterator[Flaw]:
    """Yields the top-level imports that cannot succeed; ignores those in functions, `try` and `if`."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield Flaw(node.lineno, "a step cannot use relative imports: it is not part of a package", _ALONE)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            for top in dict.fromkeys(name.partition(".")[0] for name in modules):
                if not _exists(top):
                    yield Flaw(node.lineno, f"there is no module {top!r}", _ALONE)


_ALONE = "a step is a single file: import only modules that are installed in jigsaw-triton's environment"


def _exists(module: str) -> bool:
    """Returns True if a top-level module of this name is installed; finding it does not run it."""
    try:
        return module in sys.builtin_module_names or find_spec(module) is not None
    except ValueError:  # The module is already imported but has no spec, such as __main__.
        return True
