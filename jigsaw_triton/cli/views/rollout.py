"""A rollout before it begins: its plan and its steps, and the questions whether to go on with it."""

import click

from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.rollout import Rollout
from jigsaw_triton.api.shedding import shedding_refused
from jigsaw_triton.cli.io.output import Output, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.transition import transition_view
from jigsaw_triton.errors import StateError
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.transition.transition import Transition, check_room, transition


def show_rollout(out: Output, rollout: Rollout) -> Transition | None:
    """Prints the plan, and what graphs have to shed for it.

    Returns:
        The transition to it from the running plan; None if nothing runs.
    """
    wanted, plan = rollout.wanted, rollout.plan
    demand = ", ".join(f"{name} {figures(graph.demand_rps, 4)}/s" for name, graph in plan.graphs.items())
    out.note(f"plan for {demand}: {plan.slices_used} of {plan.slices_total} slices on {plan.gpus_used} GPUs")
    for shed in rollout.sheds:
        out.warn(str(shed))
    if rollout.problem.running is None:
        for change in difference(None, plan):
            out.note(f"  {change}")
        return None
    check_room(rollout.problem, plan)
    found = transition(rollout.problem, plan, wanted.options)
    for part in transition_view(found, plan):
        text = part.plain() if isinstance(part, Table) else str(part)
        for line in filter(None, text.splitlines()):
            out.note(f"  {line}")
    return found


def confirm_rollout(out: Output, rollout: Rollout, change: Transition | None) -> None:
    """Asks whether to go on, if graphs have to shed load or requests find no capacity meanwhile.

    Where nobody can answer, only the second is accepted, with a warning.

    Args:
        out: Output of the command.
        rollout: The rollout.
        change: Transition of the rollout; None if nothing runs.

    Raises:
        InfeasibleError: Graphs have to shed load, and nobody can answer.
        StateError: The answer is no.
    """
    if rollout.sheds and not out.interactive:
        raise shedding_refused(rollout.sheds, COMMAND_LINE)
    if change is not None and change.shortfalls:
        lost = ", ".join(f"{s.graph}: about {s.requests:.0f} in {s.seconds:.0f} s" for s in change.shortfalls)
        out.warn(f"requests will be refused during this change ({lost})")
    elif not rollout.sheds:
        return
    if out.interactive and not click.confirm("Go on?", err=True):
        raise StateError("the update was not started", hint="free a slice, or try again when the load is low")
