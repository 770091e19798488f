"""Plots a replay: load, slices in use and violations over time, with a line for each system."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jigsaw_triton.evaluation.plots import COLOURS, new_figure, save
from jigsaw_triton.evaluation.replay import OURS, Replayed
from jigsaw_triton.evaluation.simulator.accounting import Array

BIN_S = 300
"""Seconds over which a line is averaged, as in the paper; more in long runs."""

_POINTS = 1440


def plot(systems: Sequence[Replayed], path: Path, *, title: str) -> None:
    """Draws the systems that can serve, with one panel for each quantity.

    Args:
        systems: Results on one trace, at least one with an operation.
        path: Path of the .svg or .png file to write.
        title: Title of the plot, which names the cluster.

    Raises:
        InputError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = new_figure(11.0, 8.0)
    figure.suptitle(title)
    load, slices, violations = figure.subplots(3, 1, sharex=True)
    runs = [(one.contender, one.operation) for one in systems if one.operation is not None]
    for number, (contender, run) in enumerate(runs):
        arrived, missed = (np.sum(list(counts.values()), axis=0) for counts in (run.arrived, run.violations))
        if number == 0:
            load.plot(*_binned(arrived), color="black", linewidth=1.0)
        style = {"color": COLOURS[number % len(COLOURS)], "linewidth": 2.0 if contender == OURS else 1.0}
        hours, sent = _binned(arrived)
        slices.plot(*_binned(run.slices), label=str(contender), **style)
        violations.plot(hours, 100 * _binned(missed)[1] / np.maximum(sent, 1e-9), **style)
    labels = ("requests/s", "compute slices", "violations, %")
    for axes, label in zip((load, slices, violations), labels, strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd")
    # A logarithmic axis shows tenths of a percent beside tens of percents.
    violations.set_yscale("symlog", linthresh=0.1)
    violations.set_ylim(0, 100)
    violations.set_xlabel("hours")
    figure.legend(*slices.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


def _binned(values: Array) -> tuple[list[float], Array]:
    """Returns the hours at which bins begin, and the means in them."""
    width = max(BIN_S, -(-len(values) // _POINTS))
    starts = range(0, len(values), width)
    return [at / 3600 for at in starts], np.array([float(values[at : at + width].mean()) for at in starts])
