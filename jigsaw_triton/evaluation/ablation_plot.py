"""Plots an ablation study as bars by subset of features on a logarithmic axis, with the optional matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.evaluation.ablation import PUBLISHED, SUBSETS, Ablation
from jigsaw_triton.evaluation.plots import COLOURS, check_plot, new_figure, save
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Formulation

_GROUP = 0.84
"""Width of a group of bars, as a share of the distance between subsets."""

_TICKS = (1, 2, 5, 10, 20)


def plot(ablations: Sequence[Ablation], path: Path, *, title: str) -> None:
    """Draws the largest demands relative to no features, with a panel per formulation and a bar per graph.

    Args:
        ablations: One or more studies.
        path: Path of the .svg or .png file to write.
        title: Title of the plot, which names the cluster.

    Raises:
        InputError: The file cannot be written, or its format is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    check_plot(path)
    figure = new_figure(11.0, 8.0)
    figure.suptitle(title)
    panels = figure.subplots(len(FORMULATIONS), 1, sharex=True, sharey=True)
    for axes, formulation in zip(panels, FORMULATIONS, strict=True):
        _panel(axes, ablations, formulation)
    panels[-1].set_xticks(range(len(SUBSETS)), ["none", *("+".join(subset) for subset in SUBSETS[1:])])
    panels[-1].set_xlabel("features: A accuracy scaling, S spatial partitioning, T task-graph-informed budgeting")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(figure, path)


def _panel(axes: Any, ablations: Sequence[Ablation], formulation: Formulation) -> None:
    width = _GROUP / len(ablations)
    for i, (ablation, colour) in enumerate(zip(ablations, _cycled(len(ablations)), strict=True)):
        gains = [ablation.gain(features, formulation) for features in SUBSETS]
        places = [x + (i + 0.5) * width - _GROUP / 2 for x, gain in enumerate(gains) if gain is not None]
        known = [gain for gain in gains if gain is not None]
        bars = axes.bar(places, known, 0.94 * width, color=colour, label=ablation.graph)
        # Labels are drawn in front of the dashed lines, on a white background.
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        axes.bar_label(bars, [f"{gain:.2f}" for gain in known], padding=3, fontsize=7.5, zorder=4, bbox=behind)
    for x, features in list(enumerate(SUBSETS))[1:]:
        ends = (x - _GROUP / 2, x + _GROUP / 2)
        label = "published: JigsawServe, 120 GPUs" if x == 1 else None
        axes.plot(ends, [PUBLISHED[features]] * 2, color="black", linewidth=1.2, linestyle="--", zorder=3, label=label)
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
