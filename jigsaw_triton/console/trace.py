"""Traces of a deployment, assembled from its servers' records of single requests."""

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

MAX_GAP_S = 30.0
"""Seconds between two hops of one request at most. After a longer gap, a hop belongs to another request with its id."""

_Record = TypeVar("_Record", Hop, Run)


@dataclass(frozen=True, slots=True)
class Stay:
    """The stay of a request at a task or Python step.

    Attributes:
        hop: Record of the front.
        runs: Records of the workers' models for each call of the hop, by start time. Models of native backends write
            none.
    """

    hop: Hop
    runs: tuple[tuple[Run, ...], ...]

    @property
    def arrived_s(self) -> float:
        """Time of arrival in the queue, in seconds since 1970."""
        return self.hop.taken_s - self.hop.waited_ms / 1000

    @property
    def ended_s(self) -> float:
        """Time of the answer, in seconds since 1970."""
        return self.hop.taken_s + self.hop.returned_ms / 1000


@dataclass(frozen=True, slots=True)
class Trace:
    """The path of one request through a graph.

    Attributes:
        graph: Name of the graph.
        request: Id that the client gave the request.
        stays: Stays of the request, at least one, in the order in which they left their queues.
    """

    graph: str
    request: str
    stays: tuple[Stay, ...]

    @property
    def began_s(self) -> float:
        """Time of arrival in the first queue, in seconds since 1970."""
        return min(stay.arrived_s for stay in self.stays)

    @property
    def total_ms(self) -> float:
        """Milliseconds from the arrival in the first queue to the last answer."""
        return 1000 * (max(stay.ended_s for stay in self.stays) - self.began_s)

    @property
    def outcome(self) -> str:
        """`answered`, or the outcome at the first task that failed the request."""
        return next((s.hop.outcome for s in self.stays if s.hop.outcome != "answered"), "answered")

    def at_ms(self, since_1970_s: float) -> float:
        """Converts a time in seconds since 1970 to milliseconds since the request's arrival."""
        return round(1000 * (since_1970_s - self.began_s), 3)

    def to_json(self) -> dict[str, Any]:
        """Returns the document that `trace -o json` prints."""
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
    """Reads the traces of a graph, ordered by the requests' arrival.

    Args:
        run_dir: Run directory of the deployment.
        graph: Name of the graph.
        request: Request id to select; None for all requests.
    """
    folder = run_dir / FOLDER
    # The pattern can match files of other graphs with dots in their names, so the records' own graph decides.
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
    traces = [
        Trace(graph, path[0].request, tuple(Stay(hop, _runs(hop, runs)) for hop in path))
        for path in hops_by_request(hops)
    ]
    return tuple(sorted(traces, key=lambda trace: trace.began_s))


def hops_by_request(hops: Iterable[Hop]) -> Iterator[list[Hop]]:
    """Groups hops by request. Clients may reuse an id, so the times of hops separate requests with the same one."""
    by_id: dict[str, list[Hop]] = {}
    for hop in sorted(hops, key=lambda h: h.taken_s):
        by_id.setdefault(hop.request, []).append(hop)
    for same_id in by_id.values():
        path: list[Hop] = []
        ended_s = 0.0
        for hop in same_id:
            gap_s = hop.taken_s - hop.waited_ms / 1000 - ended_s
            if path and gap_s >= 0 and (gap_s > MAX_GAP_S or hop.task in {h.task for h in path}):
                yield path
                path = []
            path.append(hop)
            ended_s = max(ended_s, hop.taken_s + hop.returned_ms / 1000)
        yield path


def _runs(hop: Hop, runs: Mapping[str, Sequence[Run]]) -> tuple[tuple[Run, ...], ...]:
    """Returns the runs of each call by start time: one run of a task's model, or one of each model of a chain."""
    return tuple(
        tuple(sorted((run for run in runs[call.worker] if call.number in run.tokens), key=lambda run: run.began_s))
        for call in hop.calls
    )


def _records(path: Path, read: Callable[[str], _Record]) -> Sequence[_Record]:
    """Reads the records of a file. Skips incomplete lines, and files that have been removed."""
    found: list[_Record] = []
    with suppress(OSError):
        for line in path.read_text(errors="replace").split("\n"):
            with suppress(ValueError):
                found.append(read(line))
    return found
