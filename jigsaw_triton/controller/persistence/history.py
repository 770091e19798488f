"""History of a deployment: its generations, how each of them ended up, and the return to an earlier one."""

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.persistence.checkpoint import VERSION, is_readable, pickled, unpickled
from jigsaw_triton.controller.persistence.journal import RESTORABLE, Journal
from jigsaw_triton.controller.persistence.records import Outcome
from jigsaw_triton.errors import StateError

_HINT = "`jigsaw-triton history` lists the generations"


def outcomes(before: State, after: State) -> list[tuple[int, Outcome]]:
    """Returns the generations that a step of the core has concluded, with their outcomes. Pure.

    Args:
        before: State before the step.
        after: State after the step.
    """
    old, new, pending = before.running, after.running, before.pending
    found: list[tuple[int, Outcome]] = []
    if new is not None and new is not old:
        if old is not None and old.bundle.generation != new.bundle.generation:
            found.append((old.bundle.generation, "replaced"))
        if old is None or old.bundle.generation != new.bundle.generation:
            found.append((new.bundle.generation, "serves"))
        elif before.phase is Phase.SOLVING:
            found.append((after.next_generation - 1, "unchanged"))
    ended = (action for number, action in before.inflight.items() if number not in after.inflight)
    for action in ended:
        if isinstance(action, a.Solve) and action.review:
            # A review that is not adopted came after another change, or led to the plan that runs already.
            adopted = after.pending is not None and after.pending.bundle.generation == action.generation
            found += [] if adopted else [(action.generation, "unchanged")]
    if before.phase is Phase.SOLVING and after.phase is Phase.READY and new is old:
        # The generation was planned, but the change to it was refused.
        found.append((after.next_generation - 1, "failed"))
    if pending is not None and after.pending is None and pending is not new:
        found.append((pending.bundle.generation, "failed"))
    if after.phase is Phase.STOPPED and old is not None:
        found.append((old.bundle.generation, "stopped"))
    return found


def verdicts(before: State, after: State) -> list[tuple[int, str]]:
    """Returns the generations whose canary has ended in a step of the core, with the verdicts. Pure.

    Args:
        before: State before the step.
        after: State after the step.
    """
    watch = after.watch
    if watch is None or watch.verdict is None or (before.watch is not None and before.watch.verdict is not None):
        return []
    return [(watch.new, f"canary {watch.verdict}")]


def keep(journal: Journal, generation: Generation, reason: str, *, by_load: bool) -> None:
    """Records a generation, so that a later one can return to it.

    Args:
        journal: Journal of the deployment.
        generation: Generation that was planned and compiled.
        reason: Cause of the change.
        by_load: True if the measured load caused it, False if the user did.

    Raises:
        StateError: The journal cannot be written.
    """
    plan = generation.plan.to_json()
    by = "load" if by_load else "user"
    journal.generation(generation.bundle.generation, by, reason, plan, VERSION, pickled(generation))


def restorable(journal: Journal) -> tuple[int, ...]:
    """Returns the numbers of the generations to which a rollback can return, oldest first."""
    oldest = journal.last_generation() - RESTORABLE
    return tuple(number for number in _served(journal) if number > oldest)


def recorded(journal: Journal, number: int) -> Generation | None:
    """Returns a generation; None if another release recorded it, or it is no longer kept."""
    version, state = journal.generation_state(number)
    if not is_readable(version):
        return None
    found = unpickled(state)
    assert isinstance(found, Generation)
    return found


def earlier(journal: Journal, running: int, number: int | None) -> Generation:
    """Returns a generation that served before.

    Args:
        journal: Journal of the deployment.
        running: Number of the generation that serves.
        number: Number of the generation; None for the last one that served before the running one.

    Raises:
        StateError: There is no such generation, it never served, or a release with another format recorded it.
    """
    served = _served(journal)
    if number is None:
        number = max((n for n in served if n < running), default=None)
        if number is None:
            raise StateError("no generation served before the running one", hint=_HINT)
    if number == running:
        raise StateError(f"generation {number} already serves", hint=_HINT)
    if number not in served:
        raise StateError(f"generation {number} is unknown, or never served", hint=_HINT)
    found = recorded(journal, number)
    if found is None:
        raise StateError(
            f"generation {number} was recorded by another release, or is no longer kept",
            hint="deploy its files again",
        )
    return found


def _served(journal: Journal) -> list[int]:
    """Returns the numbers of the generations that served before, oldest first."""
    return [revision.number for revision in journal.generations() if revision.outcome == "replaced"]
