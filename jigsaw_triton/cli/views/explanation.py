"""Why a plan is what it is, for readers."""

from collections.abc import Iterator, Mapping, Sequence

from jigsaw_triton.cli.io.output import View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.planner.domain.plan import Segment
from jigsaw_triton.planner.explain.explain import Choice, Effect, Explanation, Limit

_UNPROVEN = "~"


def explanation_view(explanation: Explanation) -> Iterator[View]:
    """Its parts, one below the other."""
    several = len({budget.graph for budget in explanation.tasks}) > 1
    yield _budgets(explanation, several)
    yield ""
    yield _paths(explanation, several)
    yield ""
    yield _limits(explanation.limits)
    yield ""
    yield _choices(explanation.choices, several)
    yield ""
    yield _remarks(explanation)


def _budgets(explanation: Explanation, several: bool) -> Table:
    rows = [
        (
            _of(budget.graph, budget.task, several),
            figures(budget.latency_ms),
            figures(budget.budget_ms),
            f"{budget.accuracy:.3f}",
        )
        for budget in explanation.tasks
    ]
    return Table.of(("task", "planned ms", "budget ms", "accuracy"), rows, title="what tasks use of the SLO")


def _paths(explanation: Explanation, several: bool) -> Table:
    rows = [
        (
            _of(path.graph, " > ".join(path.tasks), several),
            figures(path.latency_ms),
            figures(path.slo_ms),
            figures(path.slack_ms),
            f"{path.accuracy:.3f}",
            f"{path.slo_accuracy:.3f}",
            f"{path.slack_accuracy:.3f}",
        )
        for path in explanation.paths
    ]
    header = ("path", "planned ms", "SLO ms", "slack ms", "accuracy", "SLO", "slack")
    return Table.of(header, rows, title="what paths use of the SLO")


def _limits(limits: Sequence[Limit]) -> Table:
    rows = [
        (
            str(limit.requirement) if first else "",
            f"{limit.value:.6g}" if first else "",
            _binds(limit.binds) if first else "",
            step.change,
            *_effect(step.effect),
        )
        for limit in limits
        for step in limit.steps
        for first in [step is limit.steps[0]]
    ]
    header = ("requirement", "is", "binds", "change", "slices", "GPUs")
    return Table.of(header, rows, title="what requirements are worth")


def _choices(choices: Sequence[Choice], several: bool) -> Table:
    rows = [
        (
            _of(choice.graph, choice.task, several),
            f"{choice.what} {choice.chosen}",
            _segments(choice.instead),
            *_effect(choice.effect),
            _accuracy(choice.effect.accuracy, choice.graph),
            _accuracy(choice.effect.mean_accuracy, choice.graph),
        )
        for choice in choices
    ]
    header = ("task", "chosen", "without it", "slices", "GPUs", "accuracy", "mean")
    return Table.of(header, rows, title="what was chosen, and the next best")


def _remarks(explanation: Explanation) -> str:
    limits = [step.effect for limit in explanation.limits for step in limit.steps]
    effects = [*limits, *(choice.effect for choice in explanation.choices)]
    remarks = [f"{len(effects)} plans made in {explanation.seconds:.1f} s to compare with"]
    if explanation.unknown:
        remarks.append(f"the time limit left {explanation.unknown} of them open; --time-limit allows more")
    if not all(effect.proven for effect in effects):
        remarks.append(f"{_UNPROVEN} of plans that are not proven optimal")
    return "; ".join(remarks)


def _of(graph: str, name: str, several: bool) -> str:
    return f"{graph}: {name}" if several else name


def _binds(binds: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[binds]


def _effect(effect: Effect) -> tuple[str, str]:
    match effect.outcome:
        case "plan":
            mark = "" if effect.proven else _UNPROVEN
            return mark + _signed(effect.slices), mark + _signed(effect.gpus)
        case "none":
            return "no plan", ""
        case "unknown":
            return "?", ""


def _signed(number: int) -> str:
    return f"{number:+d}" if number else "0"


def _accuracy(more: Mapping[str, float], graph: str) -> str:
    value = more.get(graph)
    return "" if value is None else f"{value:+.3f}" if abs(value) >= 0.0005 else "0"


def _segments(segments: Sequence[Segment]) -> str:
    """Replicas by variant and slice: batch sizes and instances would be too much here."""
    counts: dict[tuple[str, str], int] = {}
    for segment in segments:
        place = (segment.variant, segment.slice)
        counts[place] = counts.get(place, 0) + segment.count
    return ", ".join(f"{count}x {variant} on {kind}" for (variant, kind), count in counts.items())
