"""The traces of a deployment: what its servers wrote of single requests, put together to their ways through a graph."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jigsaw_triton.runtime.chains import members
from jigsaw_triton.runtime.trace import (
    FOLDER,
    GATEWAY,
    WORKERS,
    Call,
    Hop,
    Run,
    hop_from_json,
    is_of,
    run_from_json,
)

APART_S = 30.0
"""A hop that begins so long after the end of the one before it is of another request with the same id."""

_CLOCKS_S = 0.002
"""What two processes may differ in about when something was."""

_Record = TypeVar("_Record", Hop, Run)


@dataclass(frozen=True, slots=True)
class Stay:
    """A request at a task.

    Attributes:
        hop: As the dispatcher has it.
        runs: For each of its calls what the workers' models have of it, as they began; models that are no python model
            write nothing.
    """

    hop: Hop
    runs: tuple[tuple[Run, ...], ...]

    @property
    def arrived_s(self) -> float:
        """When it came to the queue, since 1970."""
        return self.hop.taken_s - self.hop.waited_ms / 1000

    @property
    def ended_s(self) -> float:
        """When it was answered, since 1970."""
        return self.hop.taken_s + self.hop.returned_ms / 1000


@dataclass(frozen=True, slots=True)
class Trace:
    """One request's way.

    Attributes:
        graph: Name.
        request: The client's id.
        stays: At least one, by when they were taken from their queues.
    """

    graph: str
    request: str
    stays: tuple[Stay, ...]

    @property
    def began_s(self) -> float:
        """When it came to the first queue, since 1970."""
        return min(stay.arrived_s for stay in self.stays)

    @property
    def total_ms(self) -> float:
        """From then until its last answer."""
        return 1000 * (max(stay.ended_s for stay in self.stays) - self.began_s)

    @property
    def outcome(self) -> str:
        """`answered`, or how the first task that failed it did."""
        return next((s.hop.outcome for s in self.stays if s.hop.outcome != "answered"), "answered")

    def at_ms(self, since_1970_s: float) -> float:
        """A time as one from the beginning on."""
        return round(1000 * (since_1970_s - self.began_s), 3)

    def to_json(self) -> dict[str, Any]:
        """What `trace -o json` prints."""
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
            "dispatcher": hop.dispatcher,
            "code": hop.code,
            "outcome": hop.outcome,
            "message": hop.message,
            "requests": hop.requests,
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
        run_dir: Of the deployment.
        graph: Name.
        request: An id that clients gave; None for all.
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


def _runs(hop: Hop, runs: dict[str, list[Run]]) -> tuple[tuple[Run, ...], ...]:
    in_turn = {worker: sorted(of, key=lambda run: run.began_s) for worker, of in runs.items()}
    return tuple(tuple(run for run in in_turn[call.worker] if _is_of(run, call, hop)) for call in hop.calls)


def _is_of(run: Run, call: Call, hop: Hop) -> bool:
    """Whether a worker's model ran then for the request."""
    sent_s, ended_s = (hop.taken_s + ms / 1000 for ms in (call.sent_ms, call.ended_ms))
    return (
        (run.model == call.model or run.model.rpartition(".")[0] in _parts(call, hop))
        and any(is_of(told, hop.request, call.number) for told in run.ids)
        and sent_s - _CLOCKS_S <= run.began_s <= ended_s + _CLOCKS_S
    )


def _parts(call: Call, hop: Hop) -> frozenset[str]:
    """Of a chain that was called the names of its models, without their generations; of a task's model none."""
    tasks, variants = members(hop.task), members(call.variant)
    if len(tasks) == 1:
        return frozenset()
    return frozenset(f"{hop.graph}.{task}.{variant}" for task, variant in zip(tasks, variants, strict=False))


def _records(path: Path, read: Callable[[str], _Record]) -> Sequence[_Record]:
    """The records of a file; what is half written, or gone by now, is left out."""
    found: list[_Record] = []
    with suppress(OSError):
        for line in path.read_text().splitlines():
            with suppress(ValueError):
                found.append(read(line))
    return found
