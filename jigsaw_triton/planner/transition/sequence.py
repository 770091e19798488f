"""Sequence of moves, and which of them are made at once.

Any order is possible, since slices that leave a place and those that take it are in one move. The order matters only
for capacity. Moves are made cheapest first if no graph loses capacity that way, and otherwise in the order that misses
the fewest requests. If that order misses some and a GPU has room, replicas stand in during the transition.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from jigsaw_triton.gpus.model import Board, GpuId, Placement
from jigsaw_triton.planner.capacity import Array
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR
from jigsaw_triton.planner.transition.interim import Interim
from jigsaw_triton.planner.transition.moves import KINDS, Move, Movers, Replica, memory_slices, profile

EXACT_STATES = 2000
"""Number of states up to which dynamic programming finds the best order; beyond, a greedy rule does."""

Wave = tuple[Move, ...]
"""Moves of one kind that are made at once, all beside the old models or none."""

Rooms = Mapping[GpuId, tuple[Board, frozenset[int]]]
"""GPU -> its board, and its memory slices that are free in both plans and not used by others."""


def sequence(moves: Sequence[Move], movers: Movers, replicas: Sequence[Replica], rooms: Rooms) -> tuple[Wave, ...]:
    """Returns the waves of moves, in order.

    Args:
        moves: Moves in any order.
        movers: Factory of the moves of stand-ins.
        replicas: Replicas that may stand in.
        rooms: Free places for stand-ins.
    """
    interim = movers.interim
    ordered, held_rps = sorted(moves, key=_cheapness), interim.service.held_rps
    waves = _waves(ordered, interim, held_rps)
    if not requests_missed(waves, interim):
        return waves
    ordered = _best(ordered, interim)
    covered = _Cover(movers, replicas, rooms).covering(_waves(ordered, interim, held_rps))
    waves = _waves(ordered, interim, _floors(ordered, interim))
    return min(waves, covered, key=lambda w: round(requests_missed(w, interim), 6))


def seconds(wave: Wave) -> float:
    """Returns the expected duration of a wave."""
    return max(move.seconds for move in wave)


def during(serving: Array, wave: Iterable[Move]) -> Array:
    """Returns the calls a second in service during these moves."""
    return sum((-move.out for move in wave), serving)


def after(serving: Array, wave: Iterable[Move]) -> Array:
    """Returns the calls a second in service after these moves."""
    return sum((move.net for move in wave), serving)


def requests_missed(waves: Iterable[Wave], interim: Interim) -> float:
    """Returns the number of requests that find no capacity on the way, but would have before."""
    missed, serving = 0.0, interim.start
    for wave in waves:
        missed += _missed(serving, wave, interim)
        serving = after(serving, wave)
    return missed


def _missed(serving: Array, wave: Wave, interim: Interim) -> float:
    return interim.missing_rps(during(serving, wave)) * seconds(wave)


def _cheapness(move: Move) -> tuple[int, bool, object]:
    return KINDS.index(move.kind), not move.beside, move.changes[0]


def _waves(ordered: Iterable[Move], interim: Interim, floors_rps: Mapping[str, float]) -> tuple[Wave, ...]:
    """Joins successive moves of one kind into waves, as long as no graph falls below its floor."""
    waves: list[Wave] = []
    serving = meanwhile = interim.start
    for move in ordered:
        joined = meanwhile - move.out
        if waves and _joins(move, waves[-1][0]) and _keeps(interim.capacities(joined), floors_rps):
            waves[-1] = (*waves[-1], move)
            meanwhile = joined
        else:
            waves.append((move,))
            meanwhile = serving - move.out
        serving = serving + move.net
    return tuple(waves)


def _joins(move: Move, other: Move) -> bool:
    return (move.kind, move.beside) == (other.kind, other.beside)


def _keeps(capacities: Mapping[str, float], floors_rps: Mapping[str, float]) -> bool:
    return all(capacities[graph] >= floor * (1 - 1e-6) for graph, floor in floors_rps.items())


def _floors(ordered: Iterable[Move], interim: Interim) -> dict[str, float]:
    """Returns the least capacity of each graph while the moves are made one by one, at most what it should keep."""
    floors, serving = dict(interim.service.held_rps), interim.start
    for move in ordered:
        capacities = interim.capacities(during(serving, (move,)))
        floors = {graph: min(floor, capacities[graph]) for graph, floor in floors.items()}
        serving = after(serving, (move,))
    return floors


def _best(moves: Sequence[Move], interim: Interim) -> list[Move]:
    """Returns additions first, removals last, and between them the order that misses the fewest requests."""
    first = [move for move in moves if move.kind == "add"]
    last = [move for move in moves if move.kind == "remove"]
    alike: dict[tuple[object, ...], list[Move]] = {}
    for move in moves:
        if move.kind not in ("add", "remove"):
            alike.setdefault((move.kind, move.beside, move.seconds, move.out.tobytes(), move.net.tobytes()), []).append(
                move
            )
    groups = list(alike.values())
    exact = math.prod(len(group) + 1 for group in groups) <= EXACT_STATES
    picks = (_exact if exact else _greedy)(groups, after(interim.start, first), interim)
    left = [iter(group) for group in groups]
    return [*first, *(next(left[i]) for i in picks), *last]


def _exact(groups: Sequence[Sequence[Move]], start: Array, interim: Interim) -> list[int]:
    """Returns the group of each next move, by dynamic programming over the number of moves done in each group."""
    none, every = (0,) * len(groups), tuple(len(group) for group in groups)
    found: dict[tuple[int, ...], tuple[float, int]] = {none: (0.0, -1)}
    for done in product(*(range(n + 1) for n in every)):
        serving = sum((n * group[0].net for n, group in zip(done, groups, strict=True)), start)
        for i, group in enumerate(groups):
            if done[i] < every[i]:
                then = (*done[:i], done[i] + 1, *done[i + 1 :])
                missed = found[done][0] + _missed(serving, (group[0],), interim)
                if then not in found or missed < found[then][0] - FLOAT_ERROR:
                    found[then] = (missed, i)
    picks: list[int] = []
    at = every
    while at != none:
        i = found[at][1]
        picks.insert(0, i)
        at = (*at[:i], at[i] - 1, *at[i + 1 :])
    return picks


def _greedy(groups: Sequence[Sequence[Move]], start: Array, interim: Interim) -> list[int]:
    """Returns the group of each next move: fewest requests missed, then least capacity missing, then most slack."""
    left = {i: len(group) for i, group in enumerate(groups)}
    serving = start
    picks: list[int] = []
    while left:
        missed = {i: round(_missed(serving, (groups[i][0],), interim), 6) for i in left}
        least = min(missed.values())

        def cost(i: int, serving: Array = serving) -> tuple[float, float, int]:
            then = serving + groups[i][0].net
            return round(interim.missing_rps(then), 6), -round(interim.slack(then), 6), i

        best = min((i for i in left if missed[i] == least), key=cost)
        picks.append(best)
        serving = serving + groups[best][0].net
        left[best] -= 1
        if not left[best]:
            del left[best]
    return picks


class _Cover:
    """Adds stand-ins for waves that would miss requests.

    Args:
        movers: Factory of moves.
        replicas: Replicas that may stand in.
        rooms: Free places for them.
    """

    def __init__(self, movers: Movers, replicas: Sequence[Replica], rooms: Rooms) -> None:
        self._movers, self._interim, self._replicas = movers, movers.interim, replicas
        self._rooms = {gpu: room for gpu, room in rooms.items() if room[1]}

    def covering(self, waves: Iterable[Wave]) -> tuple[Wave, ...]:
        """Returns the waves with those that add and remove stand-ins in between."""
        covered: list[Wave] = []
        serving = self._interim.start
        present: dict[Change, Move] = {}
        for wave in waves:
            wanted = self._wanted(serving, wave, present)
            dismissed = tuple(self._movers.dismiss(move) for change, move in present.items() if change not in wanted)
            brought = tuple(move for change, move in wanted.items() if change not in present)
            covered += [changed for changed in (dismissed, brought, wave) if changed]
            present = wanted
            serving = after(serving, wave)
        if present:
            covered.append(tuple(self._movers.dismiss(move) for move in present.values()))
        return tuple(covered)

    def _wanted(self, serving: Array, wave: Wave, present: dict[Change, Move]) -> dict[Change, Move]:
        """Returns the stand-ins for a wave: the present ones and more, or a new set if that leaves less missing."""
        more = self._grown(present, serving, wave)
        lacking = self._lacking(after(serving, more.values()), wave)
        if not lacking or not present:
            return more
        others = self._grown({}, serving, wave)
        return others if self._lacking(after(serving, others.values()), wave) < lacking else more

    def _lacking(self, serving: Array, wave: Wave) -> float:
        """Returns the missing capacity during a wave and after it."""
        moments = (during(serving, wave), after(serving, wave))
        return round(sum(map(self._interim.distance, moments)), 6)

    def _grown(self, chosen: dict[Change, Move], serving: Array, wave: Wave) -> dict[Change, Move]:
        """Adds the stand-in that helps most, one after another, until nothing is missing or nothing helps."""
        while lacking := self._lacking(after(serving, chosen.values()), wave):
            helpers = list(self._helpers(chosen))
            with_each = [self._lacking(after(serving, [*chosen.values(), move]), wave) for move in helpers]
            if not helpers or min(with_each) >= lacking:
                break
            best = helpers[with_each.index(min(with_each))]
            chosen = {**chosen, best.changes[0]: best}
        return chosen

    def _helpers(self, chosen: Iterable[Change]) -> Iterator[Move]:
        """Yields a stand-in for each replica that has room beside the chosen ones."""
        taken: dict[GpuId, set[int]] = {}
        for change in chosen:
            board, _ = self._rooms[change.gpu]
            taken.setdefault(change.gpu, set()).update(memory_slices(board, change.placement))
        for replica in self._replicas:
            for gpu, (board, free) in self._rooms.items():
                if board.name != replica.board:
                    continue
                places = (Placement(start, replica.kind) for start in profile(board, replica.kind).starts)
                room = next((p for p in places if free - taken.get(gpu, set()) >= set(memory_slices(board, p))), None)
                if room is not None:
                    yield self._movers.bring(gpu, room, replica)
                    break
