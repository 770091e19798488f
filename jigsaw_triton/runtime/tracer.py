"""A dispatcher's part in traces: which of a batch's requests are traced, and what is written of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jigsaw_triton.runtime.batches import Failure
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.trace import FOLDER, GATEWAY, Call, Hop, Sampler, TraceFile, joined
from jigsaw_triton.runtime.trips import Trip


class Tracer:
    """Traces for one instance of a dispatcher.

    Args:
        spec: The dispatcher's.
        run_dir: Where it writes.
        name: Of the dispatcher.
        instance: Its number.
        clock: Seconds, the one of the trips.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        spec: DispatcherSpec,
        run_dir: Path,
        name: str,
        instance: int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._name = name
        self._file = TraceFile(run_dir / FOLDER / GATEWAY / f"{name}.{instance}.jsonl")
        self._sampler = Sampler(clock)
        self._clock = clock
        self._wall = wall

    def choose(self, ids: Sequence[str]) -> dict[int, str]:
        """Index -> id of the requests to trace."""
        return self._sampler.choose(ids)

    def write(
        self,
        chosen: Mapping[int, str],
        began_s: float,
        waited_s: Callable[[int], float],
        late: Mapping[int, Failure],
        results: Sequence[Arrays | Failure],
        trips: Sequence[Trip],
    ) -> None:
        """Writes what became of requests.

        Args:
            chosen: Index among those taken -> id.
            began_s: When they were taken, on the clock.
            waited_s: How long a request had waited then, by its index.
            late: Those that were not sent, by their index.
            results: Of all.
            trips: Of the others, which they know by their places among those that were sent.
        """
        now_s = self._clock()
        taken_s = self._wall() - (now_s - began_s)
        hops = []
        for index, name in chosen.items():
            result = results[index]
            failure = result if isinstance(result, Failure) else None
            place = index - sum(other < index for other in late)
            hops.append(
                Hop(
                    request=name,
                    graph=self._spec.graph,
                    task=self._spec.task,
                    dispatcher=self._name,
                    taken_s=round(taken_s, 6),
                    waited_ms=_ms(waited_s(index)),
                    returned_ms=_ms(now_s - began_s),
                    requests=len(results),
                    outcome="late" if index in late else failure.blame if failure else "answered",
                    message=failure.message if failure else "",
                    calls=() if index in late else _calls(trips, place, began_s),
                )
            )
        self._file.write(*hops)


def told_to_workers(chosen: Mapping[int, str], late: Mapping[int, Failure]) -> str:
    """The id that batches bring to workers; empty where nothing is traced."""
    return joined(name for index, name in chosen.items() if index not in late) if chosen else ""


def _calls(trips: Sequence[Trip], place: int, began_s: float) -> tuple[Call, ...]:
    shares = ((trip, trip.part.shares().get(place, 0)) for trip in trips)
    return tuple(
        Call(
            worker=trip.entry.worker,
            model=trip.entry.model,
            variant=trip.entry.variant,
            items=items,
            batch=len(trip.part),
            sent_ms=_ms(trip.sent_s - began_s),
            ended_ms=_ms(trip.ended_s - began_s),
            outcome=trip.outcome,
            again=trip.part.again,
            number=trip.number,
        )
        for trip, items in shares
        if items
    )


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
