"""Plots the map of what spatial partitioning gains, by largest batch and SLO, with the optional matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.evaluation.ablation import PUBLISHED_GAIN
from jigsaw_triton.evaluation.gain_map import Estimate, model_gain
from jigsaw_triton.evaluation.plots import check_plot, new_figure, save
from jigsaw_triton.gpus.model import Board

_TIGHTNESSES = (2.05, 32.0)
"""Ends of the axis of SLOs. Below 2, the latency model allows nothing."""

_STEPS = 80
"""Number of SLOs at which the map is computed."""

_BATCHES = tuple(2**power for power in range(9))
_LEVELS = (1, 1.2, 1.5, 2, 3, 5, 8, PUBLISHED_GAIN, 16, 28)
_COLUMNS = 3
_LINE: Mapping[str, Any] = {"colors": "white", "linestyles": "--", "linewidths": 1.8}


def plot(estimates: Sequence[Estimate], solved: Sequence[float | None], board: Board, path: Path) -> None:
    """Draws a panel for each graph: the map at the graph's launch share, and the graph on it.

    Args:
        estimates: Estimates, at least one.
        solved: Gain of each graph as solved; None if the cluster can serve no demand without S.
        board: Model of GPU.
        path: Path of the .svg or .png file to write.

    Raises:
        InputError: The file cannot be written, or its format is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    check_plot(path)
    columns = min(_COLUMNS, len(estimates))
    rows = -(-len(estimates) // columns)
    figure = new_figure(1.2 + 4.3 * columns, 0.9 + 3.9 * rows)
    figure.suptitle(f"Largest demand of A+S+T over that of A+T, {board.name}; dashed: {PUBLISHED_GAIN:g}, as published")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, estimate, gain in zip(panels, estimates, solved, strict=False):
        drawn = _panel(axes, estimate, gain, board)
    for axes in panels[len(estimates) :]:
        axes.set_visible(False)
    bar = figure.colorbar(drawn, ax=list(panels), ticks=np.log(_LEVELS))
    bar.ax.set_yticklabels([f"{level:g}" for level in _LEVELS])
    save(figure, path)


def _panel(axes: Any, estimate: Estimate, solved: float | None, board: Board) -> Any:
    traits = estimate.traits
    tightnesses = np.geomspace(*_TIGHTNESSES, _STEPS)
    points = ((replace(traits, tightness=float(slo), largest_batch=batch) for batch in _BATCHES) for slo in tightnesses)
    gains = np.log([[model_gain(point, board) or np.nan for point in row] for row in points])
    drawn = axes.contourf(_BATCHES, tightnesses, gains, levels=np.log(_LEVELS), cmap="viridis")
    axes.contour(_BATCHES, tightnesses, gains, levels=[np.log(PUBLISHED_GAIN)], **_LINE)
    at = (min(traits.largest_batch, _BATCHES[-1]), min(max(traits.tightness, _TIGHTNESSES[0]), _TIGHTNESSES[1]))
    axes.plot(*at, marker="o", color="white", markeredgecolor="black", markersize=9, clip_on=False, zorder=5)
    found = "not served without S" if solved is None else f"solved {solved:.2f}"
    axes.annotate(
        f"{estimate.graph}\nestimated {estimate.gain:.2f}\n{found}",
        at,
        xytext=(-10 if at[0] > _BATCHES[4] else 10, 8),
        textcoords="offset points",
        ha="right" if at[0] > _BATCHES[4] else "left",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(_BATCHES, map(str, _BATCHES))
    axes.set_yscale("log", base=2)
    axes.set_yticks((2.5, 4, 8, 16, 32), ("2.5", "4", "8", "16", "32"))
    axes.set_ylim(*_TIGHTNESSES)
    axes.minorticks_off()
    axes.set_title(f"launch share {traits.launch_share:.2f}", loc="left", fontsize=10)
    axes.set_xlabel("largest batch")
    axes.set_ylabel("SLO over the time alone on a GPU")
    return drawn
