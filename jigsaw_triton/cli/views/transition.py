"""A transition for readers: its steps, how long they take, and the capacity meanwhile."""

from collections.abc import Iterator, Mapping

from jigsaw_triton.cli.io.output import View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.transition.transition import Step, Transition

_HEADER = ("step", "kind", "what", "where", "seconds", "meanwhile", "after")
_MARKS = {"add": "+", "remove": "-", "change": "~"}


def transition_view(found: Transition, plan: Plan) -> Iterator[View]:
    """The parts of the view, one below the other.

    Args:
        found: To show.
        plan: That it leads to.
    """
    if not found.steps:
        yield "nothing that runs has to change"
        return
    several = len(plan.graphs) > 1
    rows = [row for number, step in enumerate(found.steps, 1) for row in _rows(number, step, several)]
    yield ""
    yield Table.of(_HEADER, rows, title="transition (capacity in requests/s)")
    yield f"in all {figures(found.seconds)} s as expected; {_meanwhile(found, plan)}"


def _meanwhile(found: Transition, plan: Plan) -> str:
    """What the graphs get on the way."""
    told = [
        f"{s.graph} misses up to {figures(s.missing_rps)} requests/s for {figures(s.seconds)} s, "
        f"{figures(s.requests)} requests in all"
        for s in found.shortfalls
    ]
    missing = {s.graph for s in found.shortfalls}
    for name, planned in plan.graphs.items():
        now, demand = found.before_rps[name], planned.demand_rps
        if name not in missing and now < demand * (1 - 1e-5):
            after = found.steps[-1].after_rps[name]
            told.append(f"{name} has capacity for {figures(now)} requests/s before, for {figures(after)} at the end")
    return "; ".join(told) or "the capacity for the demand is there throughout"


def _rows(number: int, step: Step, several: bool) -> Iterator[tuple[object, ...]]:
    """A row for all changes that are alike; the first says what is of the whole step."""
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
