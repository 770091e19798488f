"""In which order moves are made, and which of them at once.

Moves do not stand in each other's way, whatever their order: what has to leave a place and what comes to it are one
move. So the order is a matter of capacity alone. Cheapest first is best where it takes nothing from any graph; else the
order that costs the fewest requests; and where that costs some and there is room on a GPU, replicas stand in meanwhile.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from jigsaw_triton.gpus.model import Board, GpuId, Placement
from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.planner.transition.moves import KINDS, Move, Movers, memory_slices, profile

EXACT_STATES = 2000
"""Up to so many different situations the best order is searched for among all."""

_ROUNDING = 1e-9

Wave = tuple[Move, ...]
"""Moves of one kind, made at once."""

Replica = tuple[str, str, tuple[PlacedModel, ...]]
"""Model of GPU, slice kind, what is in it."""

Rooms = Mapping[GpuId, tuple[Board, frozenset[int]]]
"""GPU -> its board and the memory slices that neither plan takes, nor others."""


def sequence(moves: Sequence[Move], movers: Movers, replicas: Sequence[Replica], rooms: Rooms) -> tuple[Wave, ...]:
    """The waves, in order.

    Args:
        moves: In any order.
        movers: Make those of stand-ins.
        replicas: That may stand in.
        rooms: Where they may.
    """
    service = movers.service
    ordered = sorted(moves, key=_cheapness)
    waves = _waves(ordered, service, service.held_rps)
    if not requests_missed(waves, service):
        return waves
    ordered = _best(ordered, service)
    covered = _Cover(movers, replicas, rooms).covering(_waves(ordered, service, service.held_rps))
    waves = _waves(ordered, service, _floors(ordered, service))
    return min(waves, covered, key=lambda w: round(requests_missed(w, service), 6))


def seconds(wave: Wave) -> float:
    """Of moves made at once."""
    return max(move.seconds for move in wave)


def during(serving: Array, wave: Iterable[Move]) -> Array:
    """What serves while moves are made."""
    return sum((-move.out for move in wave), serving)


def after(serving: Array, wave: Iterable[Move]) -> Array:
    """What serves once they are."""
    return sum((move.net for move in wave), serving)


def requests_missed(waves: Iterable[Wave], service: Service) -> float:
    """Requests that find no capacity on the way, of those that found some before."""
    missed, serving = 0.0, service.start
    for wave in waves:
        missed += _missed(serving, wave, service)
        serving = after(serving, wave)
    return missed


def _missed(serving: Array, wave: Wave, service: Service) -> float:
    return service.missing_rps(during(serving, wave)) * seconds(wave)


def _cheapness(move: Move) -> tuple[int, object]:
    return KINDS.index(move.kind), move.changes[0]


def _waves(ordered: Iterable[Move], service: Service, floors_rps: Mapping[str, float]) -> tuple[Wave, ...]:
    """Neighbours of one kind joined, as long as no graph falls below its floor for it."""
    waves: list[Wave] = []
    serving = meanwhile = service.start
    for move in ordered:
        joined = meanwhile - move.out
        if waves and waves[-1][0].kind == move.kind and _keeps(service.capacities(joined), floors_rps):
            waves[-1] = (*waves[-1], move)
            meanwhile = joined
        else:
            waves.append((move,))
            meanwhile = serving - move.out
        serving = serving + move.net
    return tuple(waves)


def _keeps(capacities: Mapping[str, float], floors_rps: Mapping[str, float]) -> bool:
    return all(capacities[graph] >= floor * (1 - 1e-6) for graph, floor in floors_rps.items())


def _floors(ordered: Iterable[Move], service: Service) -> dict[str, float]:
    """To what each graph falls where the moves are made one by one; no less than it should have, if it keeps that."""
    floors, serving = dict(service.held_rps), service.start
    for move in ordered:
        capacities = service.capacities(during(serving, (move,)))
        floors = {graph: min(floor, capacities[graph]) for graph, floor in floors.items()}
        serving = after(serving, (move,))
    return floors


def _best(moves: Sequence[Move], service: Service) -> list[Move]:
    """What has room first, what is not needed last, and between them the order that misses the fewest requests."""
    first = [move for move in moves if move.kind == "add"]
    last = [move for move in moves if move.kind == "remove"]
    alike: dict[tuple[object, ...], list[Move]] = {}
    for move in moves:
        if move.kind not in ("add", "remove"):
            alike.setdefault((move.kind, move.seconds, move.out.tobytes(), move.net.tobytes()), []).append(move)
    groups = list(alike.values())
    exact = math.prod(len(group) + 1 for group in groups) <= EXACT_STATES
    picks = (_exact if exact else _greedy)(groups, after(service.start, first), service)
    left = [iter(group) for group in groups]
    return [*first, *(next(left[i]) for i in picks), *last]


def _exact(groups: Sequence[Sequence[Move]], start: Array, service: Service) -> list[int]:
    """Dynamic programming over how many of each group are done; the groups to take from, in order."""
    none, every = (0,) * len(groups), tuple(len(group) for group in groups)
    found: dict[tuple[int, ...], tuple[float, int]] = {none: (0.0, -1)}
    for done in product(*(range(n + 1) for n in every)):
        serving = sum((n * group[0].net for n, group in zip(done, groups, strict=True)), start)
        for i, group in enumerate(groups):
            if done[i] < every[i]:
                then = (*done[:i], done[i] + 1, *done[i + 1 :])
                missed = found[done][0] + _missed(serving, (group[0],), service)
                if then not in found or missed < found[then][0] - _ROUNDING:
                    found[then] = (missed, i)
    picks: list[int] = []
    at = every
    while at != none:
        i = found[at][1]
        picks.insert(0, i)
        at = (*at[:i], at[i] - 1, *at[i + 1 :])
    return picks


def _greedy(groups: Sequence[Sequence[Move]], start: Array, service: Service) -> list[int]:
    """Always the move that misses the fewest requests, then leaves the fewest missing, then the most slack."""
    left = {i: len(group) for i, group in enumerate(groups)}
    serving = start
    picks: list[int] = []
    while left:

        def cost(i: int, serving: Array = serving) -> tuple[float, float, float, int]:
            move = groups[i][0]
            then = serving + move.net
            lacking = service.missing_rps(then)
            return round(_missed(serving, (move,), service), 6), round(lacking, 6), -round(service.slack(then), 6), i

        best = min(left, key=cost)
        picks.append(best)
        serving = serving + groups[best][0].net
        left[best] -= 1
        if not left[best]:
            del left[best]
    return picks


class _Cover:
    """Puts stand-ins beside waves that would miss requests.

    Args:
        movers: Make the moves.
        replicas: That may stand in.
        rooms: Where they may.
    """

    def __init__(self, movers: Movers, replicas: Sequence[Replica], rooms: Rooms) -> None:
        self._movers, self._service, self._replicas = movers, movers.service, replicas
        self._rooms = {gpu: room for gpu, room in rooms.items() if room[1]}

    def covering(self, waves: Iterable[Wave]) -> tuple[Wave, ...]:
        """The waves, with those that bring stand-ins and dismiss them between."""
        covered: list[Wave] = []
        serving = self._service.start
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
        """The stand-ins for a wave: those that are there, and more; others, where that does not do and they do more."""
        more = self._grown(present, serving, wave)
        lacking = self._lacking(after(serving, more.values()), wave)
        if not lacking or not present:
            return more
        others = self._grown({}, serving, wave)
        return others if self._lacking(after(serving, others.values()), wave) < lacking else more

    def _lacking(self, serving: Array, wave: Wave) -> float:
        """How much is missing while a wave is made and after it."""
        moments = (during(serving, wave), after(serving, wave))
        return round(sum(map(self._service.distance, moments)), 6)

    def _grown(self, chosen: dict[Change, Move], serving: Array, wave: Wave) -> dict[Change, Move]:
        """Joined one after another by the one that helps most, until nothing is missing or nothing helps."""
        while lacking := self._lacking(after(serving, chosen.values()), wave):
            helpers = list(self._helpers(chosen))
            with_each = [self._lacking(after(serving, [*chosen.values(), move]), wave) for move in helpers]
            if not helpers or min(with_each) >= lacking:
                break
            best = helpers[with_each.index(min(with_each))]
            chosen = {**chosen, best.changes[0]: best}
        return chosen

    def _helpers(self, chosen: Iterable[Change]) -> Iterator[Move]:
        """One of each replica that finds room beside those that are chosen."""
        taken: dict[GpuId, set[int]] = {}
        for change in chosen:
            board, _ = self._rooms[change.gpu]
            taken.setdefault(change.gpu, set()).update(memory_slices(board, change.placement))
        for board_name, kind, models in self._replicas:
            for gpu, (board, free) in self._rooms.items():
                places = (Placement(s, kind) for s in profile(board, kind).starts) if board.name == board_name else ()
                room = next((p for p in places if free - taken.get(gpu, set()) >= set(memory_slices(board, p))), None)
                if room is not None:
                    yield self._movers.bring(gpu, room, models)
                    break
