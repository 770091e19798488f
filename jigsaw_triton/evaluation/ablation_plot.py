"""Plots an ablation study as bars by subset of features on a logarithmic axis, with the optional matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.evaluation.ablation import PUBLISHED, Ablation
from jigsaw_triton.evaluation.plots import COLOURS, check_plot, new_figure, save
from jigsaw_triton.planner.domain.features import named
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Formulation

_GROUP = 0.84
"""Width of a group of bars, as a share of the distance between subsets."""

_TICKS = (1, 2, 5, 10, 20)

_AXIS = (
    "features: A accuracy scaling, S spatial partitioning (M MIG slices, P several instances in a slice), "
    "T task-graph-informed budgeting"
)


def plot(ablations: Sequence[Ablation], path: Path, *, title: str) -> None:
    """Draws the largest demands relative to no features, with a panel per formulation and a bar per graph.

    Args:
        ablations: One or more studies of the same subsets.
        path: Path of the .svg or .png file to write.
        title: Title of the plot, which names the cluster.

    Raises:
        InputError: The file cannot be written, or its format is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    check_plot(path)
    subsets = ablations[0].subsets
    figure = new_figure(3.0 + len(subsets), 8.0)
    figure.suptitle(title)
    panels = figure.subplots(len(FORMULATIONS), 1, sharex=True, sharey=True)
    for axes, formulation in zip(panels, FORMULATIONS, strict=True):
        _panel(axes, ablations, formulation)
    panels[-1].set_xticks(range(len(subsets)), [named(subset) for subset in subsets])
    panels[-1].set_xlabel(_AXIS)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(figure, path)


def _panel(axes: Any, ablations: Sequence[Ablation], formulation: Formulation) -> None:
    width = _GROUP / len(ablations)
    for i, (ablation, colour) in enumerate(zip(ablations, _cycled(len(ablations)), strict=True)):
        gains = [ablation.gain(features, formulation) for features in ablation.subsets]
        places = [x + (i + 0.5) * width - _GROUP / 2 for x, gain in enumerate(gains) if gain is not None]
        known = [gain for gain in gains if gain is not None]
        bars = axes.bar(places, known, 0.94 * width, color=colour, label=ablation.graph)
        # Labels are drawn in front of the dashed lines, on a white background.
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        axes.bar_label(bars, [f"{gain:.2f}" for gain in known], padding=3, fontsize=7.5, zorder=4, bbox=behind)
    published = {x: PUBLISHED[f] for x, f in enumerate(ablations[0].subsets) if f in PUBLISHED and f}
    for number, (x, gain) in enumerate(published.items()):
        ends = (x - _GROUP / 2, x + _GROUP / 2)
        label = "published: JigsawServe, 120 GPUs" if number == 0 else None
        axes.plot(ends, [gain] * 2, color="black", linewidth=1.2, linestyle="--", zorder=3, label=label)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.9)
    axes.set_yticks(_TICKS, map(str, _TICKS))
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.set_ylabel("largest demand, relative to none")
    axes.set_title(f"{formulation} formulation", loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _cycled(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
