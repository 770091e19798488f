"""Plots a run: arrivals and capacity, slices, accuracy and violations over time."""

from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.evaluation.plots import COLOURS, new_figure, save
from jigsaw_triton.evaluation.simulator.accounting import Array, Operation

_POINTS = 1440
"""Largest number of points of a line. More seconds are averaged."""


def plot(run: Operation, path: Path, *, simulated: Operation | None = None) -> None:
    """Draws a run with one panel for each quantity.

    Args:
        run: Run.
        path: Path of the .svg or .png file to write.
        simulated: Simulation of the same load, whose slices and violations are drawn dotted.

    Raises:
        InputError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = new_figure(11.0, 9.0)
    load, slices, accuracy, violations = figure.subplots(4, 1, sharex=True)
    for (name, arrived), colour in zip(run.arrived.items(), _colours(run), strict=True):
        _line(load, arrived, colour, f"{name}: arrivals")
        _line(load, run.capacity_rps[name], colour, f"{name}: capacity", linestyle="--")
        _line(accuracy, run.accuracy[name], colour, name)
        _line(violations, _percent(run, name), colour, name)
        if simulated is not None:
            _line(violations, _percent(simulated, name), colour, f"{name}: simulated", linestyle=":")
    _line(slices, run.slices, "black", "slices")
    if simulated is not None:
        _line(slices, simulated.slices, "black", "simulated", linestyle=":")
        for axes in (slices, violations):
            axes.legend(loc="upper left", fontsize=8)
    labels = ("requests/s", "compute slices", "accuracy", "violations, %")
    for axes, label in zip((load, slices, accuracy, violations), labels, strict=True):
        axes.set_ylabel(label)
        if axes is not accuracy:
            axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd")
        for change in run.changes:
            axes.axvline(change.at_s / 3600, color="#999999", linewidth=0.6, zorder=0)
    load.legend(loc="upper left", fontsize=8)
    load.set_title("grey lines: changes of the plan", loc="right", fontsize=9)
    violations.set_xlabel("hours")
    save(figure, path)


def _percent(run: Operation, graph: str) -> Array:
    percent: Array = 100 * run.violations[graph] / np.maximum(run.arrived[graph], 1e-9)
    return percent


def _line(axes: Any, values: Array, colour: str, label: str, *, linestyle: str = "-") -> None:
    width = -(-len(values) // _POINTS)
    means = [float(values[at : at + width].mean()) for at in range(0, len(values), width)]
    hours = [at / 3600 for at in range(0, len(values), width)]
    axes.plot(hours, means, color=colour, label=label, linestyle=linestyle, linewidth=1.2)


def _colours(run: Operation) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(run.arrived))]
