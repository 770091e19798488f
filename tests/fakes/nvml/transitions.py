"""Random changes of a machine's layouts by an owner that shares it with others, and what must hold whatever goes wrong.

Each attempt is a process of its own, so that the stand-in can end it at any call.
"""

import multiprocessing
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.errors import MigError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, GpuId, Layout, MigInstance, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.rearrangement import rearrangement
from tests.fakes.nvml.machine import CHANGES, Machine, enter

NODE = "n"
GPU = GpuId(NODE, 0)
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])

_MODELS = ("A100-80GB", "H100-80GB", "A30-24GB")

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
        self.machine.forget_calls()

    def __enter__(self) -> "Owner":
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.leave()

    def attempt(self, layout: Layout) -> int:
        """Brings the owner's instances to a layout, in a process of its own; how that ended."""
        process = _PROCESSES.Process(target=_attempt, args=(self.machine.path, self._journal, self.transition, layout))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

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


def _driver(transition: Transition) -> NvmlMigDriver:
    return NvmlMigDriver(NODE, {0: transition.board})


def _attempt(machine: Path, file: Path, transition: Transition, layout: Layout) -> NoReturn:
    """What a process of the owner does."""
    enter(machine)
    try:
        with closing(Journal(file)) as journal:
            instances = Instances(journal, _driver(transition), sleep=lambda _: None)
            instances.recover()
            instances.rearrange([rearrangement(GPU, journal.instances(), layout)])
    except MigError:
        sys.exit(REFUSED)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        sys.exit(BROKEN)
    sys.exit(DONE)


def changes_of(transition: Transition, folder: Path) -> list[str]:
    """Names of the calls that change something, in a change during which nothing goes wrong."""
    with Owner(folder, transition) as owner:
        if owner.change() != DONE or owner.wrong():
            raise AssertionError(f"{transition} fails by itself: {owner.wrong()}")
        return [call.name for call in owner.machine.changes()]


def fewest_changes(transition: Transition) -> int:
    """Calls that a change takes at least: two to create an instance, two to destroy one."""
    before, after = set(transition.before), set(transition.after)
    return 2 * len(before ^ after)


def plausible_codes(call: str) -> Iterator[int]:
    """Codes of NVML that a call may well return once."""
    unknown, in_use, no_room, not_found, timeout = 999, 19, 23, 6, 10
    assert call in CHANGES
    yield from (unknown, in_use, timeout)
    yield no_room if "Create" in call else not_found
