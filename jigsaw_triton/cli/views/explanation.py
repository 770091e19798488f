"""An explanation of a plan as tables."""

from collections.abc import Iterator, Mapping, Sequence

from jigsaw_triton.cli.io.output import View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.planner.domain.plan import Segment
from jigsaw_triton.planner.explain.explanation import Choice, Effect, Explanation, Limit

_UNPROVEN = "~"

_AMOUNTS = {False: ("slices", "GPUs"), True: ("cost", "slices", "GPUs")}
"""Columns of an effect: with the cost if the plan has one."""


def explanation_view(explanation: Explanation) -> Iterator[View]:
    """Yields the parts of an explanation, to be printed one below the other."""
    several = len({budget.graph for budget in explanation.tasks}) > 1
    yield _budgets(explanation, several)
    yield ""
    yield _paths(explanation, several)
    yield ""
    priced = any(effect.cost is not None for effect in _effects(explanation))
    yield _limits(explanation.limits, priced)
    yield ""
    yield _choices(explanation.choices, several, priced)
    yield ""
    yield _remarks(explanation)


def _budgets(explanation: Explanation, several: bool) -> Table:
    rows = [
        (
            _label(budget.graph, budget.task, several),
            figures(budget.latency_ms),
            figures(budget.budget_ms),
            f"{budget.accuracy:.3f}",
        )
        for budget in explanation.tasks
    ]
    return Table.of(("task", "planned ms", "budget ms", "accuracy"), rows, title="shares of the SLO by task")


def _paths(explanation: Explanation, several: bool) -> Table:
    rows = [
        (
            _label(path.graph, " > ".join(path.tasks), several),
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
    return Table.of(header, rows, title="shares of the SLO by path")


def _limits(limits: Sequence[Limit], priced: bool) -> Table:
    rows = [
        (
            str(limit.requirement) if first else "",
            f"{limit.value:.6g}" if first else "",
            _binds(limit.binds) if first else "",
            step.change,
            *_effect(step.effect, priced),
        )
        for limit in limits
        for step in limit.steps
        for first in [step is limit.steps[0]]
    ]
    header = ("requirement", "value", "binds", "change", *_AMOUNTS[priced])
    return Table.of(header, rows, title="cost of the requirements")


def _choices(choices: Sequence[Choice], several: bool, priced: bool) -> Table:
    rows = [
        (
            _label(choice.graph, choice.task, several),
            f"{choice.what} {choice.chosen}",
            _segments(choice.instead),
            *_effect(choice.effect, priced),
            _accuracy(choice.effect.accuracy, choice.graph),
            _accuracy(choice.effect.mean_accuracy, choice.graph),
        )
        for choice in choices
    ]
    header = ("task", "chosen", "instead", *_AMOUNTS[priced], "accuracy", "mean")
    return Table.of(header, rows, title="choices and their next best alternatives")


def _effects(explanation: Explanation) -> list[Effect]:
    limits = [step.effect for limit in explanation.limits for step in limit.steps]
    return [*limits, *(choice.effect for choice in explanation.choices)]


def _remarks(explanation: Explanation) -> str:
    effects = _effects(explanation)
    remarks = [f"compared with {len(effects)} other plans in {explanation.seconds:.1f} s"]
    if explanation.unknown:
        remarks.append(f"{explanation.unknown} of them reached the time limit without a result; raise --time-limit")
    if not all(effect.proven for effect in effects):
        remarks.append(f"{_UNPROVEN} marks plans that are not proven optimal")
    return "; ".join(remarks)


def _label(graph: str, name: str, several: bool) -> str:
    return f"{graph}: {name}" if several else name


def _binds(binds: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[binds]


def _effect(effect: Effect, priced: bool) -> tuple[str, ...]:
    """Returns the cells of the columns of `_AMOUNTS`."""
    others = len(_AMOUNTS[priced]) - 1
    match effect.outcome:
        case "plan":
            mark = "" if effect.proven else _UNPROVEN
            cost = [f"{effect.cost:+.2f}"] if effect.cost is not None else []
            return tuple(mark + text for text in (*cost, _signed(effect.slices), _signed(effect.gpus)))
        case "none":
            return ("no plan", *[""] * others)
        case "unknown":
            return ("?", *[""] * others)


def _signed(number: int) -> str:
    return f"{number:+d}" if number else "0"


def _accuracy(more: Mapping[str, float], graph: str) -> str:
    value = more.get(graph)
    return "" if value is None else f"{value:+.3f}" if abs(value) >= 0.0005 else "0"


def _segments(segments: Sequence[Segment]) -> str:
    """Returns the number of replicas by variant and slice, without batch sizes and instances."""
    counts: dict[tuple[str, str], int] = {}
    for segment in segments:
        place = (segment.variant, segment.slice)
        counts[place] = counts.get(place, 0) + segment.count
    return ", ".join(f"{count}x {variant} on {kind}" for (variant, kind), count in counts.items())
