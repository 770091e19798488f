"""Random changes of a GPU's layout by an owner that shares the GPU with others, and checks for any fault during them.

Each attempt runs in a process of its own, so that the stand-in can kill it at any call. A process without threads that
has already imported everything forks them (`forker.py`).
"""

import atexit
import base64
import os
import pickle
import random
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import MigError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, GpuId, Layout, MigInstance, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.rearrangement import rearrangement
from tests.fakes.nvml.machine import CHANGES, Action, Call, Machine, enter

NODE = "n"
GPU = GpuId(NODE, 0)
_MODELS = ("A100-80GB", "H100-80GB", "A30-24GB")

NOT_FOUND, IN_USE, UNKNOWN = 6, 19, 999
"""Return codes of NVML."""

DONE, REFUSED, BROKEN, KILLED = 0, 1, 2, -9
"""Exit statuses of an attempt: success, an error meant for users, any other error, and killed by the stand-in."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one GPU.

    Attributes:
        board: Model of the GPU.
        foreign: Placements of others' instances; if there are several, the last one is half-made.
        before: Placements of the owner's instances before the change.
        after: Placements that the owner wants after the change.
    """

    board: Board
    foreign: Layout
    before: Layout
    after: Layout


def transitions(count: int, seed: int) -> list[Transition]:
    """Returns random transitions on three kinds of boards."""
    rng = random.Random(seed)
    return [_transition(rng, board(rng.choice(_MODELS))) for _ in range(count)]


def _transition(rng: random.Random, model: Board) -> Transition:
    while True:
        foreign = _random_layout(rng, model, (), rng.randint(0, 2))
        before = _random_layout(rng, model, foreign, rng.randint(0, 4))
        stay = tuple(rng.sample(before, len(before) // 2))
        after = _random_layout(rng, model, (*foreign, *stay), rng.randint(0, 4)) + stay
        if set(before) != set(after):
            return Transition(model, foreign, before, tuple(sorted(after)))


def _random_layout(rng: random.Random, model: Board, around: Layout, count: int) -> Layout:
    """Returns up to `count` random placements that fit beside others."""
    places = [Placement(start, kind) for kind, profile in model.profiles.items() for start in profile.starts]
    rng.shuffle(places)
    layout: Layout = ()
    for place in places:
        if len(layout) < count and fits(model, (*around, *layout, place)) is None:
            layout = (*layout, place)
    return tuple(sorted(layout))


class Owner:
    """An owner of instances on GPU 0 of a simulated machine.

    Args:
        folder: Folder for the machine and the owner's journal.
        transition: Change to make; the owner starts with its layout from before the change.
    """

    def __init__(self, folder: Path, transition: Transition) -> None:
        self.transition = transition
        self.machine = Machine(folder / "gpus", [transition.board.name])
        self._journal = folder / "journal.sqlite"
        for file in folder.glob(f"{self._journal.name}*"):
            file.unlink()
        for number, place in enumerate(transition.foreign):
            self.machine.foreign(0, place.slice, place.start, half=number > 0 and number == len(transition.foreign) - 1)
        self.machine.enter()
        self._others = self.instances()
        if self.attempt(transition.before) != DONE:
            raise AssertionError("the initial layout could not be created")
        self._mine = self.journaled()
        self._initial = (self.machine.path.read_bytes(), self._journal.read_bytes())
        self.machine.forget_calls()

    def restore(self) -> None:
        """Restores the initial state of machine and journal."""
        machine, journal = self._initial
        # The file is rewritten in place because processes have mapped it.
        with self.machine.path.open("r+b") as file:
            file.write(machine)
        for path in self._journal.parent.glob(f"{self._journal.name}-*"):
            path.unlink()
        self._journal.write_bytes(journal)
        self.machine.forget_calls()

    def __enter__(self) -> "Owner":
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.leave()

    def attempt(self, layout: Layout) -> int:
        """Gives the owner's instances a layout, in a process of its own, and returns its exit status."""
        return _in_a_process((self.machine.path, self._journal, self.transition, layout))

    def change(self) -> int:
        """Makes one attempt at the transition and returns its exit status."""
        return self.attempt(self.transition.after)

    def instances(self) -> tuple[MigInstance, ...]:
        """Returns all instances on the machine."""
        return _driver(self.transition).instances()

    def journaled(self) -> tuple[MigInstance, ...]:
        """Returns the instances in the owner's journal."""
        with closing(Journal(self._journal)) as journal:
            return tuple(sorted(journal.instances(), key=lambda i: i.placement))

    def violation(self) -> str:
        """Returns the first violated condition after the change; empty if all conditions hold."""
        owned, present = self.journaled(), self.instances()
        if tuple(i.placement for i in owned) != self.transition.after:
            return f"the owner's layout is {owned}, not {self.transition.after}"
        if set(present) != {*owned, *self._others}:
            return f"the machine has {present}, the owner {owned}, others {self._others}"
        stay = [i for i in self._mine if i.placement in self.transition.after]
        if not {*stay} <= {*owned}:
            return f"{stay} should have stayed, but the owner has {owned}"
        with closing(Journal(self._journal)) as journal:
            if journal.creations() or journal.destructions():
                return f"the journal has unfinished changes: {journal.creations()} {journal.destructions()}"
        touched = {
            call.arguments
            for call in self.machine.changes()
            for place in self.transition.foreign
            if call.name.endswith("Destroy") and call.arguments == f"0@{place.start}"
        }
        return f"others' instances were touched: {touched}" if touched else ""

    def calls(self) -> list[Call]:
        """Makes the change without faults, restores the initial state, and returns the calls of the change."""
        status, calls = self.change(), self.machine.calls()
        if status != DONE or self.violation():
            raise AssertionError(f"{self.transition} fails without a fault: {self.violation()}")
        self.restore()
        return calls

    def changes(self) -> list[str]:
        """Returns the names of the calls of a change without faults that change something."""
        return [call.name for call in self.calls() if call.name in CHANGES]

    def killed_at(self, call: str, nth: int, action: Action) -> str:
        """Kills the first attempt at a call, makes a second attempt, and returns what is then wrong; empty if nothing.

        Args:
            call: Kind of call to count: `change` or `*`.
            nth: Number of the call, from 1.
            action: Moment of the kill: before or after the call takes effect.
        """
        self.restore()
        self.machine.fault(call, nth, action)
        first, second = self.change(), self.change()
        if (first, second) != (KILLED, DONE):
            return f"the first attempt ended with {first}, the second with {second}"
        return self.violation()

    def failed_at(self, call: str, nth: int, code: int) -> tuple[int, str]:
        """Makes an attempt in which one call fails, and a second one if the first was refused.

        Args:
            call: Kind of call to count: `change` or `*`.
            nth: Number of the call, from 1.
            code: Return code of the call.

        Returns:
            The exit status of the first attempt, and what is wrong at the end; empty if nothing.
        """
        self.restore()
        self.machine.fault(call, nth, "fail", code)
        status = self.change()
        if status == REFUSED and code == IN_USE and call == "change":
            return status, "an instance was in use for a moment, and there was no retry"
        if status not in (DONE, REFUSED) or (status == REFUSED and self.change() != DONE):
            return status, f"the first attempt ended with {status}, and the second did not succeed"
        return status, self.violation()


def _driver(transition: Transition) -> NvmlMigDriver:
    return NvmlMigDriver(NODE, {0: transition.board})


Job = tuple[Path, Path, Transition, Layout]
"""Arguments of an attempt: the machine's file, the owner's journal, the transition, and the wanted layout."""


def attempt(machine: Path, file: Path, transition: Transition, layout: Layout) -> int:
    """Recovers from an earlier attempt and changes to a layout, as the owner would; returns the exit status."""
    enter(machine)
    try:
        with closing(Journal(file)) as journal:
            instances = Instances(journal, _driver(transition), sleep=lambda _: None)
            instances.recover()
            instances.rearrange([rearrangement(GPU, journal.instances(), layout)])
    except MigError:
        return REFUSED
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return BROKEN
    return DONE


@cache
def _forker() -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"{__package__}.forker"]
    path = os.pathsep.join(filter(None, sys.path))
    forker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    atexit.register(forker.communicate)
    return forker


def _in_a_process(job: Job) -> int:
    forker = _forker()
    assert forker.stdin is not None and forker.stdout is not None
    print(base64.b64encode(pickle.dumps(job)).decode(), file=forker.stdin, flush=True)
    return int(forker.stdout.readline())


def fewest_changes(transition: Transition) -> int:
    """Returns the smallest number of changing calls: two to create an instance, and two to destroy one."""
    before, after = set(transition.before), set(transition.after)
    return 2 * len(before ^ after)


def plausible_codes(call: str) -> Iterator[int]:
    """Yields error codes of NVML that a call may plausibly return once."""
    no_room, timeout = 23, 10
    if call not in CHANGES:
        yield from (UNKNOWN, NOT_FOUND)
        return
    yield from (UNKNOWN, IN_USE, timeout)
    yield no_room if "Create" in call else NOT_FOUND
