"""The traces of a deployment: what its servers wrote of single requests, put together to their ways through a graph."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jigsaw_triton.runtime.trace import (
    FOLDER,
    GATEWAY,
    WORKERS,
    Hop,
    Run,
    hop_from_json,
    run_from_json,
)

APART_S = 30.0
"""A hop that begins so long after the end of the one before it is of another request with the same id."""

_Record = TypeVar("_Record", Hop, Run)


@dataclass(frozen=True, slots=True)
class Stay:
    """A request at a task or python step.

    Attributes:
        hop: Record of the front.
        runs: Records of the workers' models for each of its calls, as they began; models of native backends write none.
    """

    hop: Hop
    runs: tuple[tuple[Run, ...], ...]

    @property
    def arrived_s(self) -> float:
        """Time at which it came to the queue, in seconds since 1970."""
        return self.hop.taken_s - self.hop.waited_ms / 1000

    @property
    def ended_s(self) -> float:
        """Time at which it was answered, in seconds since 1970."""
        return self.hop.taken_s + self.hop.returned_ms / 1000


@dataclass(frozen=True, slots=True)
class Trace:
    """One request's way.

    Attributes:
        graph: Name of the graph.
        request: Id that the client gave.
        stays: One stay at least, in the order in which they left their queues.
    """

    graph: str
    request: str
    stays: tuple[Stay, ...]

    @property
    def began_s(self) -> float:
        """Time at which it came to the first queue, in seconds since 1970."""
        return min(stay.arrived_s for stay in self.stays)

    @property
    def total_ms(self) -> float:
        """Time from then until its last answer."""
        return 1000 * (max(stay.ended_s for stay in self.stays) - self.began_s)

    @property
    def outcome(self) -> str:
        """`answered`, or how the first task that failed it did."""
        return next((s.hop.outcome for s in self.stays if s.hop.outcome != "answered"), "answered")

    def at_ms(self, since_1970_s: float) -> float:
        """A time in milliseconds from the beginning on."""
        return round(1000 * (since_1970_s - self.began_s), 3)

    def to_json(self) -> dict[str, Any]:
        """The document that `trace -o json` prints."""
        return {
            "graph": self.graph,
            "request": self.request,
            "began_at": datetime.fromtimestamp(self.began_s, UTC).isoformat(timespec="milliseconds"),
            "total_ms": round(self.total_ms, 3),
            "outcome": self.outcome,
            "hops": [self._stay_to_json(stay) for stay in self.stays],
        }

    def _stay_to_json(self, stay: Stay) -> dict[str, Any]:
        hop = stay.hop
        return {
            "task": hop.task,
            "route": hop.route,
            "outcome": hop.outcome,
            "message": hop.message,
            "arrived_ms": self.at_ms(stay.arrived_s),
            "taken_ms": self.at_ms(hop.taken_s),
            "returned_ms": self.at_ms(stay.ended_s),
            "calls": [
                {
                    **asdict(call),
                    "sent_ms": self.at_ms(hop.taken_s + call.sent_ms / 1000),
                    "ended_ms": self.at_ms(hop.taken_s + call.ended_ms / 1000),
                    "runs": [
                        {
                            "model": run.model,
                            "began_ms": self.at_ms(run.began_s),
                            "took_ms": run.took_ms,
                            "items": run.items,
                        }
                        for run in runs
                    ],
                }
                for call, runs in zip(hop.calls, stay.runs, strict=True)
            ],
        }


def read_traces(run_dir: Path, graph: str, request: str | None = None) -> tuple[Trace, ...]:
    """The traces of a graph that are there, by their beginning.

    Args:
        run_dir: Run directory of the deployment.
        graph: Name of the graph.
        request: Id that clients gave; None for all.
    """
    folder = run_dir / FOLDER
    # Dots in names make one graph's files look like another's: the records tell.
    hops = [
        hop
        for path in (folder / GATEWAY).glob(f"{graph}.*.jsonl*")
        for hop in _records(path, hop_from_json)
        if hop.graph == graph and request in (None, hop.request)
    ]
    workers = {call.worker for hop in hops for call in hop.calls}
    runs = {
        worker: [run for path in (folder / WORKERS / worker).glob("*.jsonl*") for run in _records(path, run_from_json)]
        for worker in workers
    }
    traces = [Trace(graph, way[0].request, tuple(Stay(hop, _runs(hop, runs)) for hop in way)) for way in together(hops)]
    return tuple(sorted(traces, key=lambda trace: trace.began_s))


def together(hops: Iterable[Hop]) -> Iterator[list[Hop]]:
    """The hops of each request; clients may use an id again."""
    by_id: dict[str, list[Hop]] = {}
    for hop in sorted(hops, key=lambda h: h.taken_s):
        by_id.setdefault(hop.request, []).append(hop)
    for same in by_id.values():
        way: list[Hop] = []
        ended_s = 0.0
        for hop in same:
            later_s = hop.taken_s - hop.waited_ms / 1000 - ended_s
            if way and later_s >= 0 and (later_s > APART_S or hop.task in {h.task for h in way}):
                yield way
                way = []
            way.append(hop)
            ended_s = max(ended_s, hop.taken_s + hop.returned_ms / 1000)
        yield way


def _runs(hop: Hop, runs: Mapping[str, Sequence[Run]]) -> tuple[tuple[Run, ...], ...]:
    """The runs of each call, as they began: one of a task's model, one of each model of a chain."""
    return tuple(
        tuple(sorted((run for run in runs[call.worker] if call.number in run.tokens), key=lambda run: run.began_s))
        for call in hop.calls
    )


def _records(path: Path, read: Callable[[str], _Record]) -> Sequence[_Record]:
    """The records of a file; what is half written, or gone by now, is left out."""
    found: list[_Record] = []
    with suppress(OSError):
        for line in path.read_text().splitlines():
            with suppress(ValueError):
                found.append(read(line))
    return found
