"""Checking models against their graphs."""

from jigsaw_triton.api.files import Mistakes, PathLike, read_graphs_and_lines
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.models.files import check_files
from jigsaw_triton.models.running import TIMEOUT_S, run_models
from jigsaw_triton.spec.source import Report, SourceMap


def check_models(graph: TaskGraph | PathLike, *, run: bool = True, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Checks that the models of a graph take and return what it declares. Models whose files are missing are left out.

    Args:
        graph: Graph, or path of a graph.yaml or its folder.
        run: True if each model is run on a sample, in a process of its own; False if only files are read.
        timeout_s: Seconds that each model may take.

    Returns:
        Notes about models that could not be checked completely.

    Raises:
        SpecError: There are mistakes; the error has a diagnostic for each.

    Examples:
        >>> import jigsaw_triton as jt
        >>> jt.check_models("app")
        []
    """
    mistakes = Mistakes()
    found = read_graphs_and_lines([graph], mistakes)
    notes: list[str] = []
    for checked, lines in found.values():
        with mistakes:
            notes += models_of(checked, lines, run=run, timeout_s=timeout_s)
    mistakes.raise_if_any()
    return notes


def models_of(graph: TaskGraph, lines: SourceMap, *, run: bool, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Checks the models of a graph that has been read.

    Args:
        graph: The graph.
        lines: Lines of its entries.
        run: See `check_models`.
        timeout_s: See `check_models`.

    Returns:
        Notes about models that could not be checked completely.

    Raises:
        SpecError: There are mistakes; the error has a diagnostic for each.
    """
    report = Report(lines)
    wrong = check_files(graph, report)
    notes = run_models(graph, report, without=wrong, timeout_s=timeout_s) if run else []
    report.raise_if_any()
    return notes
