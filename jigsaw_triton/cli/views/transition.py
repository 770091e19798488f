"""A transition as a table: its steps, their expected time, and the capacity during and after each."""

from collections.abc import Iterator, Mapping
from typing import Any

from jigsaw_triton.cli.io.output import View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan, PlanCost
from jigsaw_triton.planner.transition.transition import Step, Transition

_HEADER = ("step", "kind", "change", "slice", "seconds", "during", "after")
_MARKS = {"add": "+", "remove": "-", "change": "~"}


def transition_view(found: Transition, plan: Plan) -> Iterator[View]:
    """Yields the parts of the view, to be printed one below the other.

    Args:
        found: The transition.
        plan: Plan that it leads to.
    """
    if not found.steps:
        yield "no slice and no choice of a model has to change"
        return
    several = len(plan.graphs) > 1
    rows = [row for number, step in enumerate(found.steps, 1) for row in _rows(number, step, several)]
    yield ""
    yield Table.of(_HEADER, rows, title="transition (capacity in requests/s)")
    yield f"expected to take {figures(found.seconds)} s in total; {_capacity_meanwhile(found, plan)}"


def totals_document(before: Plan | None, cost: PlanCost | None) -> dict[str, Any]:
    """Returns what the running plan uses, as an entry of the transition in JSON.

    Args:
        before: Running plan.
        cost: Cost of that plan, by the costs that the new plan was made with; None if all slices count alike.
    """
    if before is None:
        return {}
    return {"before": {"slices_used": before.slices_used, "cost": None if cost is None else cost.used}}


def totals_words(before: Plan | None, cost: PlanCost | None, plan: Plan) -> Iterator[str]:
    """Yields a line that compares what the running plan and the new one use; arguments as in `totals_document`."""
    if before is not None:
        costs = f", cost {cost.used:.2f} -> {plan.cost.words(plan.cost.used)}" if cost is not None and plan.cost else ""
        yield f"slices in use {before.slices_used} -> {plan.slices_used}{costs}"


def _capacity_meanwhile(found: Transition, plan: Plan) -> str:
    """Returns where the capacity is too small during the transition, and for how long."""
    sentences = [
        f"{s.graph} lacks capacity for up to {figures(s.missing_rps)} requests/s for {figures(s.seconds)} s, "
        f"{figures(s.requests)} requests in total"
        for s in found.shortfalls
    ]
    missing = {s.graph for s in found.shortfalls}
    for name, planned in plan.graphs.items():
        now, demand = found.before_rps[name], planned.demand_rps
        if name not in missing and now < demand * (1 - 1e-5):
            after = found.steps[-1].after_rps[name]
            sentences.append(
                f"{name} has capacity for {figures(now)} requests/s before, and for {figures(after)} at the end"
            )
    return "; ".join(sentences) or "the capacity covers the demand throughout"


def _rows(number: int, step: Step, several: bool) -> Iterator[tuple[object, ...]]:
    """Yields a row for each group of equal changes. The first row also has the columns of the whole step."""
    alike: dict[tuple[str, str], list[Change]] = {}
    for change in step.changes:
        alike.setdefault((change.placement.slice, _what(change, several)), []).append(change)
    kind = f"{step.kind}, stand-in" if step.stand_in else step.kind
    rates = (_rates({g: rps[g] for g in step.graphs if g in rps}) for rps in (step.during_rps, step.after_rps))
    whole = (figures(step.seconds), *rates)
    lines = [(what, _where(changes)) for (_, what), changes in alike.items()] or [(", ".join(step.graphs), "")]
    for i, line in enumerate(lines):
        yield (number, kind, *line, *whole) if i == 0 else ("", "", *line, "", "", "")


def _what(change: Change, several: bool) -> str:
    before, after = (", ".join(_label(m, several) for m in models) for models in (change.before, change.after))
    return f"{_MARKS[change.kind]} {' -> '.join(filter(None, (before, after)))}"


def _label(model: PlacedModel, several: bool) -> str:
    task = f"{model.graph}.{model.task}" if several else model.task
    return f"{task} {model.variant} {model.instances}x b{model.batch}"


def _where(changes: list[Change]) -> str:
    first = changes[0]
    others = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{first.gpu} {first.placement}{others}"


def _rates(rps: Mapping[str, float]) -> str:
    if len(rps) == 1:
        (value,) = rps.values()
        return figures(value)
    return ", ".join(f"{name} {figures(value)}" for name, value in rps.items())
