"""Plots what spatial partitioning gains against the assumptions, with the optional matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.evaluation.plots import COLOURS, check_plot, new_figure, save

_GAINS = (1, 2, 5, 10, 20)
_TOP = 100
"""Upper end of the axis of gains, which leaves room for the legend above the lines."""

_TITLES = ("by the time to launch an operator", "by the part: MIG slices (M), instances (P)", "by the SLO")
_LABELS = ("largest batch", "largest batch", "SLO, relative to the best variants alone on a GPU")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the plot.

    Attributes:
        label: Text in the legend.
        points: Value of the assumption and gain of each point.
    """

    label: str
    points: tuple[tuple[float, float], ...]


def plot(panels: Sequence[Sequence[Line]], published: float, path: Path) -> None:
    """Draws a panel for each assumption.

    Args:
        panels: Lines of the three panels, in the order of `benchmarks.ablation.lines`.
        published: Gain that the paper reports.
        path: Path of the .svg or .png file to write.

    Raises:
        InputError: The file cannot be written, or its format is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    check_plot(path)
    figure = new_figure(13.0, 4.2)
    figure.suptitle("Largest demand of A+S+T over that of A+T: geometric mean of social, traffic and ar on 120 H100")
    for axes, lines, title, label in zip(figure.subplots(1, 3, sharey=True), panels, _TITLES, _LABELS, strict=True):
        _panel(axes, lines, published)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(label)
    save(figure, path)


def _panel(axes: Any, lines: Sequence[Line], published: float) -> None:
    for line, colour in zip(lines, COLOURS, strict=False):
        xs, gains = zip(*line.points, strict=True)
        axes.plot(xs, gains, color=colour, marker="o", markersize=4, label=line.label)
    axes.axhline(published, color="black", linewidth=1.2, linestyle="--", label=f"published: {published:g}")
    axes.set_xscale("log", base=2)
    ticks = sorted({x for line in lines for x, _ in line.points})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_yscale("log")
    axes.set_ylim(0.9, _TOP)
    axes.set_yticks(_GAINS, map(str, _GAINS))
    axes.minorticks_off()
    axes.grid(color="#dddddd")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
