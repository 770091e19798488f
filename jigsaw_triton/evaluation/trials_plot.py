"""Plots steady trials: slices and violations by load, with a colour for each system."""

from collections.abc import Sequence
from pathlib import Path

from jigsaw_triton.evaluation.plots import COLOURS, new_figure, save
from jigsaw_triton.evaluation.replay import OURS
from jigsaw_triton.evaluation.trials import Trials


def plot(systems: Sequence[Trials], total: int, path: Path, *, title: str) -> None:
    """Draws the systems that can serve, with one panel for each quantity.

    Args:
        systems: Trials at the same loads, of at least one system that can serve.
        total: Compute slices of the cluster.
        path: Path of the .svg or .png file to write.
        title: Title of the plot, which names the cluster.

    Raises:
        InputError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = new_figure(11.0, 4.5)
    figure.suptitle(title)
    slices, violations = figure.subplots(1, 2)
    for number, one in enumerate(one for one in systems if one.trials):
        trials = sorted(one.trials, key=lambda trial: trial.load_rps)
        loads = [trial.load_rps for trial in trials]
        front = {"linewidth": 2.0, "zorder": 4} if one.contender == OURS else {"linewidth": 1.0, "zorder": 3}
        style = {"color": COLOURS[number % len(COLOURS)], **front}
        slices.step(loads, [100 * trial.slices / total for trial in trials], where="post", **style)
        label = f"{one.contender}: {one.mean_slices / total:.1%}, {one.violation_share:.2%} late or refused"
        shares = [100 * trial.violation_share for trial in trials]
        violations.plot(loads, shares, label=label, linestyle="none", marker=".", clip_on=False, **style)
    for axes, text in ((slices, "compute slices, % of all"), (violations, "violations, %")):
        axes.set_xlabel("requests/s")
        axes.set_ylabel(text)
        axes.set_xlim(left=0)
        axes.grid(color="#dddddd")
    slices.set_ylim(0, 103)
    # A logarithmic axis shows tenths of a percent beside tens of percents.
    violations.set_yscale("symlog", linthresh=0.1)
    violations.set_ylim(0, 100)
    violations.set_yticks((0, 0.1, 1, 10, 100), ("0", "0.1", "1", "10", "100"))
    figure.legend(*violations.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)
