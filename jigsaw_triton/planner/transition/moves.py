"""Moves: the changes on GPUs that lead from one plan to another. Each is independent of the order of the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from jigsaw_triton.gpus.layouts import occupied
from jigsaw_triton.gpus.model import Board, GpuId, MigProfile, Placement
from jigsaw_triton.planner.capacity import Array
from jigsaw_triton.planner.domain.difference import Change, Place
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.planner.transition.interim import Interim

Kind = Literal["shares", "instances", "variant", "add", "geometry", "remove"]
KINDS: tuple[Kind, ...] = ("instances", "variant", "add", "geometry", "shares", "remove")
"""Kinds of steps, in the order in which they are taken if capacity permits. Moves have any kind except `shares`.
Removals come last: replicas that are no longer needed serve until the end."""


@dataclass(frozen=True, slots=True)
class Durations:
    """Expected durations of operations, in seconds. The defaults are meant to be replaced by measured ones.

    Attributes:
        shares_s: Seconds to change routes.
        drain_s: Seconds until the last batches of replicas without a route end.
        load_s: Seconds to load and verify a model.
        create_s: Seconds to create a MIG instance.
        destroy_s: Seconds to stop a tritonserver and destroy its MIG instance.
        start_s: Seconds to start a tritonserver.
    """

    shares_s: float = 0.05
    drain_s: float = 0.2
    load_s: float = 1.0
    create_s: float = 0.2
    destroy_s: float = 1.0
    start_s: float = 1.5

    def loading_s(self, models: Sequence[PlacedModel]) -> float:
        """Returns the seconds to load models, one after another, and to route to them."""
        return self.load_s * len(models) + self.shares_s

    def adding_s(self, models: Sequence[PlacedModel]) -> float:
        """Returns the seconds from a free place to a worker that serves."""
        return self.create_s + self.start_s + self.loading_s(models)

    @property
    def removing_s(self) -> float:
        """Seconds from a worker that serves to a free place."""
        return self.shares_s + self.drain_s + self.destroy_s


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Smallest set of changes that have to be made together.

    Attributes:
        kind: Kind of move: `instances` and `variant` keep the slice, `geometry` replaces slices by others.
        changes: Changes of slices, all on one GPU.
        seconds: Expected duration.
        out: Replicas that are out of service during the move; see `Interim` for the form.
        net: Replicas that the move adds, negative where it takes some away.
        beside: True if new models of a slice that stays are loaded while its old models still serve; False if the slice
            has too little memory for both, or its server is replaced, so that the old models are unloaded first.
        stand_in: True if it adds or removes a stand-in, a replica that serves only during the transition.
    """

    kind: Kind
    changes: tuple[Change, ...]
    seconds: float
    out: Array
    net: Array
    beside: bool = True
    stand_in: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """A replica that may stand in.

    Attributes:
        board: Model of its GPU.
        kind: Slice, the kind of MIG instance.
        models: Models in the slice.
        carried: Calls a second of the models, by generation.
    """

    board: str
    kind: str
    models: tuple[PlacedModel, ...]
    carried: Array


@dataclass(frozen=True, slots=True)
class Movers:
    """Factory of moves.

    Attributes:
        boards: Boards of the GPUs that either plan uses.
        interim: Capacity during the change.
        durations: Durations of operations.
        restarts: MIG instances that stay, but whose servers are replaced.
    """

    boards: Mapping[GpuId, Board]
    interim: Interim
    durations: Durations
    restarts: frozenset[Place] = frozenset()

    def moves(self, changes: Sequence[Change]) -> Iterator[Move]:
        """Yields the moves that make these changes.

        Args:
            changes: Differences of two plans, ordered by GPU as `difference` returns them.
        """
        for gpu, on_gpu in groupby(changes, key=lambda change: change.gpu):
            listed = list(on_gpu)
            yield from (self._in_place(change) for change in listed if change.kind == "change")
            others = [change for change in listed if change.kind != "change"]
            for together in _overlapping(self.boards[gpu], others):
                yield self._cut(together)

    def _in_place(self, change: Change) -> Move:
        board, kind = self.boards[change.gpu], change.placement.slice
        # A model is reloaded if it starts or stops taking turns with others. All models are reloaded if only their
        # files have changed.
        alike = (len(change.before) > 1) == (len(change.after) > 1) and change.before != change.after
        coming = [m for m in change.after if not (alike and m in change.before)]
        before, after = self._before(change), self._after(change)
        room = profile(board, kind).memory_mib
        both = self.interim.service.memory_mib([*change.before, *coming], board.name, kind)
        restarts = (change.gpu, change.placement) in self.restarts
        beside = (room is None or both <= room) and not restarts
        variants = [sorted((m.graph, m.task, m.variant) for m in models) for models in (change.before, change.after)]
        return Move(
            kind="instances" if variants[0] == variants[1] and change.before != change.after else "variant",
            changes=(change,),
            seconds=self.durations.loading_s(coming)
            + (0.0 if beside else self.durations.drain_s)
            + (self.durations.start_s if restarts else 0.0),
            out=np.stack([0 * before if beside else before] * 2),
            # A slice that has loaded the new models beside the old ones can still serve with the old ones.
            net=np.stack([0 * before if beside else after - before, after - before]),
            beside=beside,
        )

    def _cut(self, changes: Sequence[Change]) -> Move:
        leaving = [change for change in changes if change.kind == "remove"]
        coming = [change for change in changes if change.kind == "add"]
        out = sum(map(self._before, leaving), self.interim.nothing[0])
        come = sum(map(self._after, coming), self.interim.nothing[0])
        return Move(
            kind="geometry" if leaving and coming else "add" if coming else "remove",
            changes=tuple(changes),
            seconds=(self.durations.removing_s if leaving else 0.0)
            + max((self.durations.adding_s(change.after) for change in coming), default=0.0),
            out=np.stack([out] * 2),
            net=np.stack([come - out] * 2),
        )

    def bring(self, gpu: GpuId, placement: Placement, replica: Replica) -> Move:
        """Returns the move that adds a stand-in."""
        net = np.stack([replica.carried] * 2)
        change = Change(gpu, placement, "add", (), replica.models)
        return Move("add", (change,), self.durations.adding_s(replica.models), 0 * net, net, stand_in=True)

    def dismiss(self, brought: Move) -> Move:
        """Returns the move that removes a stand-in again."""
        (change,) = brought.changes
        gone = Change(change.gpu, change.placement, "remove", change.after, ())
        return Move("remove", (gone,), self.durations.removing_s, brought.net, -brought.net, stand_in=True)

    def _before(self, change: Change) -> Array:
        return self.interim.existing((change.gpu, change.placement), change.before, self.boards[change.gpu].name)

    def _after(self, change: Change) -> Array:
        return self.interim.wanted((change.gpu, change.placement), change.after, self.boards[change.gpu].name)


def profile(board: Board, kind: str) -> MigProfile:
    """Returns the MIG profile of a slice that the board has."""
    found = board.profile(kind)
    assert found is not None, f"{board.name} has no slice {kind}"
    return found


def memory_slices(board: Board, placement: Placement) -> range:
    """Returns the memory slices that a placement takes."""
    return occupied(profile(board, placement.slice), placement)


def _overlapping(board: Board, changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yields groups of changes that overlap: within a group, all removals must precede all additions."""
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
