"""Common parts of plots, which need the optional matplotlib."""

from importlib import import_module
from pathlib import Path
from typing import Any

from jigsaw_triton.errors import InputError, MissingDependencyError

FORMATS = (".svg", ".png")

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Colours of graphs: the palette of Okabe and Ito, which colour-blind readers can distinguish."""


def check_plot(path: Path) -> None:
    """Checks that a plot can be written to this path, before the study takes minutes.

    Raises:
        InputError: The file cannot be written, or its format is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise InputError(
            "the name of a plot must end in .svg or .png", where=str(path), hint=f"use {path.with_suffix('.svg')}"
        )
    _matplotlib("figure")
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    return _matplotlib("figure").Figure(figsize=(width, height), dpi=120, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Writes a figure. Equal figures give equal files.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        # Without a date, equal studies give equal files.
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"the file cannot be written ({error.strerror})", where=str(path), hint="choose another place")


def _matplotlib(module: str) -> Any:
    try:
        return import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is needed for plots, but not installed", hint="pip install 'jigsaw-triton[plot]'"
        ) from error
