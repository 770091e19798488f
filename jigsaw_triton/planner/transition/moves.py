"""What has to be done on GPUs to come from one plan to another: moves that do not depend on each other's order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from jigsaw_triton.gpus.layouts import occupied
from jigsaw_triton.gpus.model import Board, GpuId, MigProfile, Placement
from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.domain.plan import PlacedModel

Kind = Literal["shares", "instances", "variant", "add", "geometry", "remove"]
KINDS: tuple[Kind, ...] = ("shares", "instances", "variant", "add", "geometry", "remove")
"""Cheapest first; what is no longer needed serves until the last."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long things are expected to take, in seconds; defaults, to be replaced by what was measured.

    Attributes:
        shares_s: To change routes.
        drain_s: Until the last batches of what left the routes have ended.
        load_s: To load and verify a model.
        create_s: To create a MIG instance.
        destroy_s: To stop a tritonserver and destroy its MIG instance.
        start_s: To start a tritonserver.
    """

    shares_s: float = 0.05
    drain_s: float = 0.2
    load_s: float = 1.0
    create_s: float = 0.2
    destroy_s: float = 1.0
    start_s: float = 1.5

    def loading_s(self, models: Sequence[PlacedModel]) -> float:
        """To load models, one after another, and route to them."""
        return self.load_s * len(models) + self.shares_s

    def adding_s(self, models: Sequence[PlacedModel]) -> float:
        """From nothing to a worker that serves."""
        return self.create_s + self.start_s + self.loading_s(models)

    @property
    def removing_s(self) -> float:
        """From a worker that serves to nothing."""
        return self.shares_s + self.drain_s + self.destroy_s


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """The least that can be done at once, without regard to what is done elsewhere.

    Attributes:
        kind: `instances` and `variant` leave the slice as it is, `geometry` puts slices in the place of others.
        changes: Of the slices concerned, all on one GPU.
        seconds: Expected.
        out: What does not serve meanwhile.
        net: What serves more afterwards, or less.
        stand_in: Whether it is about a replica that serves during the transition alone.
    """

    kind: Kind
    changes: tuple[Change, ...]
    seconds: float
    out: Array
    net: Array
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class Movers:
    """Makes moves.

    Attributes:
        boards: Of the GPUs of either plan.
        service: What replicas carry.
        durations: What things take.
    """

    boards: Mapping[GpuId, Board]
    service: Service
    durations: Durations

    def moves(self, changes: Sequence[Change]) -> Iterator[Move]:
        """Those that make up the difference of two plans.

        Args:
            changes: By GPU, as `difference` gives them.
        """
        for gpu, here in groupby(changes, key=lambda change: change.gpu):
            listed = list(here)
            yield from (self._in_place(change) for change in listed if change.kind == "change")
            others = [change for change in listed if change.kind != "change"]
            for together in _overlapping(self.boards[gpu], others):
                yield self._cut(together)

    def _in_place(self, change: Change) -> Move:
        board, kind = self.boards[change.gpu], change.placement.slice
        # To take turns, or to no longer do so, a model is loaded anew.
        alike = (len(change.before) > 1) == (len(change.after) > 1)
        coming = [m for m in change.after if not (alike and m in change.before)]
        before, after = self._carried(change, change.before), self._carried(change, change.after)
        room = profile(board, kind).memory_mib
        both = self.service.memory_mib([*change.before, *coming], board.name, kind)
        beside = room is None or both <= room
        variants = [sorted((m.graph, m.task, m.variant) for m in models) for models in (change.before, change.after)]
        return Move(
            kind="instances" if variants[0] == variants[1] else "variant",
            changes=(change,),
            seconds=self.durations.loading_s(coming) + (0.0 if beside else self.durations.drain_s),
            out=0 * before if beside else before,
            net=after - before,
        )

    def _cut(self, changes: Sequence[Change], *, stand_in: bool = False) -> Move:
        leaving = [change for change in changes if change.kind == "remove"]
        coming = [change for change in changes if change.kind == "add"]
        nothing = 0 * self.service.start
        out = sum((self._carried(change, change.before) for change in leaving), nothing)
        come = sum((self._carried(change, change.after) for change in coming), nothing)
        return Move(
            kind="geometry" if leaving and coming else "add" if coming else "remove",
            changes=tuple(changes),
            seconds=(self.durations.removing_s if leaving else 0.0)
            + max((self.durations.adding_s(change.after) for change in coming), default=0.0),
            out=out,
            net=come - out,
            stand_in=stand_in,
        )

    def bring(self, gpu: GpuId, placement: Placement, models: tuple[PlacedModel, ...]) -> Move:
        """Adds a stand-in."""
        return self._cut([Change(gpu, placement, "add", (), models)], stand_in=True)

    def dismiss(self, brought: Move) -> Move:
        """Removes what a move of `bring` added."""
        (change,) = brought.changes
        return self._cut([Change(change.gpu, change.placement, "remove", change.after, ())], stand_in=True)

    def _carried(self, change: Change, models: Sequence[PlacedModel]) -> Array:
        return self.service.of(models, self.boards[change.gpu].name, change.placement.slice)


def profile(board: Board, kind: str) -> MigProfile:
    """Of a slice kind that the board has."""
    found = board.profile(kind)
    assert found is not None, f"{board.name} has no slice {kind}"
    return found


def memory_slices(board: Board, placement: Placement) -> range:
    """Those that a placement takes."""
    return occupied(profile(board, placement.slice), placement)


def _overlapping(board: Board, changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Parts that do not touch each other: in each, all that leaves must be gone before any of it can come."""
    group: list[Change] = []
    end = 0
    for change in sorted(changes, key=lambda change: (change.placement, change.kind)):
        taken = memory_slices(board, change.placement)
        if group and taken.start >= end:
            yield group
            group = []
        end = max(end, taken.stop) if group else taken.stop
        group.append(change)
    if group:
        yield group
