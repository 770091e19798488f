"""Random changes of a machine's layouts by an owner that shares it with others, and what must hold whatever goes wrong.

Each attempt is a process of its own, so that the stand-in can end it at any call. They are forked off one that has all
imported and has no threads (`forker.py`).
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

from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import Journal
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
"""Of NVML."""


DONE, REFUSED, BROKEN, KILLED = 0, 1, 2, -9
"""How an attempt ends: the layout is there; an error that users see; any other one; by the stand-in."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one GPU.

    Attributes:
        board: Its model.
        foreign: Others' instances, the last of them half made.
        before: The owner's instances.
        after: Those that it then wants.
    """

    board: Board
    foreign: Layout
    before: Layout
    after: Layout


def transitions(count: int, seed: int) -> list[Transition]:
    """Random ones, on boards of three kinds."""
    chance = random.Random(seed)
    return [_transition(chance, board(chance.choice(_MODELS))) for _ in range(count)]


def _transition(chance: random.Random, of: Board) -> Transition:
    while True:
        foreign = _grown(chance, of, (), chance.randint(0, 2))
        before = _grown(chance, of, foreign, chance.randint(0, 4))
        stay = tuple(chance.sample(before, len(before) // 2))
        after = _grown(chance, of, (*foreign, *stay), chance.randint(0, 4)) + stay
        if set(before) != set(after):
            return Transition(of, foreign, before, tuple(sorted(after)))


def _grown(chance: random.Random, of: Board, around: Layout, count: int) -> Layout:
    """Up to as many placements that fit beside others."""
    places = [Placement(start, kind) for kind, profile in of.profiles.items() for start in profile.starts]
    chance.shuffle(places)
    layout: Layout = ()
    for place in places:
        if len(layout) < count and fits(of, (*around, *layout, place)) is None:
            layout = (*layout, place)
    return tuple(sorted(layout))


class Owner:
    """Somebody who has instances on GPU 0 of a machine, and the machine.

    Args:
        folder: For the machine and the owner's journal.
        transition: What is there at first.
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
            raise AssertionError("the layout that there is to be at first could not be made")
        self._mine = self.noted()
        self._first = (self.machine.path.read_bytes(), self._journal.read_bytes())
        self.machine.forget_calls()

    def again(self) -> None:
        """Brings all back to how it was at first."""
        machine, journal = self._first
        # In place: processes have it mapped.
        with self.machine.path.open("r+b") as file:
            file.write(machine)
        for leftover in self._journal.parent.glob(f"{self._journal.name}-*"):
            leftover.unlink()
        self._journal.write_bytes(journal)
        self.machine.forget_calls()

    def __enter__(self) -> "Owner":
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.leave()

    def attempt(self, layout: Layout) -> int:
        """Brings the owner's instances to a layout, in a process of its own; how that ended."""
        return _in_a_process((self.machine.path, self._journal, self.transition, layout))

    def change(self) -> int:
        """`attempt` of the layout that is wanted."""
        return self.attempt(self.transition.after)

    def instances(self) -> tuple[MigInstance, ...]:
        """All that there are."""
        return _driver(self.transition).instances()

    def noted(self) -> tuple[MigInstance, ...]:
        """Those that the owner's journal knows of."""
        with closing(Journal(self._journal)) as journal:
            return tuple(sorted(journal.instances(), key=lambda i: i.placement))

    def wrong(self) -> str:
        """What is not as it must be after the change; empty where all is."""
        noted, there = self.noted(), self.instances()
        if tuple(i.placement for i in noted) != self.transition.after:
            return f"the owner's layout is {noted}, not {self.transition.after}"
        if set(there) != {*noted, *self._others}:
            return f"there are {there}, the owner's are {noted}, others' {self._others}"
        stay = [i for i in self._mine if i.placement in self.transition.after]
        if not {*stay} <= {*noted}:
            return f"{stay} were to stay, {noted} are there"
        with closing(Journal(self._journal)) as journal:
            if journal.creations() or journal.destructions():
                return f"the journal has open ends: {journal.creations()} {journal.destructions()}"
        touched = {
            call.arguments
            for call in self.machine.changes()
            for place in self.transition.foreign
            if call.name.endswith("Destroy") and call.arguments == f"0@{place.start}"
        }
        return f"others' instances were touched: {touched}" if touched else ""

    def calls(self) -> list[Call]:
        """The calls of a change during which nothing goes wrong; all is as at first then."""
        ended, calls = self.change(), self.machine.calls()
        if ended != DONE or self.wrong():
            raise AssertionError(f"{self.transition} fails by itself: {self.wrong()}")
        self.again()
        return calls

    def changes(self) -> list[str]:
        """Names of those that change something."""
        return [call.name for call in self.calls() if call.name in CHANGES]

    def killed_at(self, call: str, nth: int, action: Action) -> str:
        """What is wrong after a process that was killed at a call, and one that came after it; empty where nothing is.

        Args:
            call: `change` or `*`.
            nth: Of those.
            action: Before or after it took effect.
        """
        self.again()
        self.machine.fault(call, nth, action)
        killed, completed = self.change(), self.change()
        if (killed, completed) != (KILLED, DONE):
            return f"the first attempt ended with {killed}, the second with {completed}"
        return self.wrong()

    def failed_at(self, call: str, nth: int, code: int) -> tuple[int, str]:
        """How an attempt ends of which one call fails, and what is wrong after another one where that was refused.

        Args:
            call: `change` or `*`.
            nth: Of those.
            code: What it fails with.
        """
        self.again()
        self.machine.fault(call, nth, "fail", code)
        ended = self.change()
        if ended == REFUSED and code == IN_USE and call == "change":
            return ended, "something was in use for a moment, and was not tried again"
        if ended not in (DONE, REFUSED) or (ended == REFUSED and self.change() != DONE):
            return ended, f"the first attempt ended with {ended}, the second did not make it good"
        return ended, self.wrong()


def _driver(transition: Transition) -> NvmlMigDriver:
    return NvmlMigDriver(NODE, {0: transition.board})


Job = tuple[Path, Path, Transition, Layout]
"""Of an attempt: the machine's file, the owner's journal, what it is about, the layout that is wanted."""


def attempt(machine: Path, file: Path, transition: Transition, layout: Layout) -> int:
    """What a process of the owner does, and its exit status."""
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
    """Calls that a change takes at least: two to create an instance, two to destroy one."""
    before, after = set(transition.before), set(transition.after)
    return 2 * len(before ^ after)


def plausible_codes(call: str) -> Iterator[int]:
    """Codes of NVML that a call may well return once."""
    no_room, timeout = 23, 10
    if call not in CHANGES:
        yield from (UNKNOWN, NOT_FOUND)
        return
    yield from (UNKNOWN, IN_USE, timeout)
    yield no_room if "Create" in call else NOT_FOUND
