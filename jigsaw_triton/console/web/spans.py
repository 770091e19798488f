"""Traces of requests as lists of spans, for a waterfall. Pure."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from jigsaw_triton.console.trace import Stay, Trace
from jigsaw_triton.errors import InputError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TraceKey:
    """Identity of a trace. A client may use an id again, so the time belongs to it.

    Attributes:
        graph: Name of the graph.
        request: Id that the client gave the request.
        at_ms: Time of arrival, in whole milliseconds since 1970.
    """

    graph: str
    request: str
    at_ms: int

    @classmethod
    def of(cls, trace: Trace) -> Self:
        """Returns the key of a trace."""
        return cls(trace.graph, trace.request, round(1000 * trace.began_s))

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Reads a key from the text that `str` has made of it.

        Raises:
            InputError: The text is no such key.
        """
        try:
            graph, request, at_ms = json.loads(text)
            if isinstance(graph, str) and isinstance(request, str) and isinstance(at_ms, int):
                return cls(graph, request, at_ms)
        except (TypeError, ValueError, RecursionError):
            pass
        raise InputError("this is not the id of a trace", where=text[:80], hint="take it from /api/traces")

    def names(self, trace: Trace) -> bool:
        """Returns True if the key is that of a trace, or was while tasks of it were still to be recorded.

        A trace that is listed before its first task is recorded seems to begin later.
        """
        begin_ms = round(1000 * trace.began_s)
        same = (self.graph, self.request) == (trace.graph, trace.request)
        return same and begin_ms <= self.at_ms <= begin_ms + trace.total_ms

    def __str__(self) -> str:
        return json.dumps([self.graph, self.request, self.at_ms], separators=(",", ":"))


def listed(trace: Trace) -> Json:
    """Returns the entry of a trace in a list."""
    return {
        "id": str(TraceKey.of(trace)),
        "request": trace.request,
        "graph": trace.graph,
        "t": trace.began_s,
        "ms": round(trace.total_ms, 3),
        "outcome": trace.outcome,
    }


def spans(trace: Trace) -> Json:
    """Returns a trace with its spans, in the order of a waterfall from top to bottom."""
    found = [asdict(span) for stay in trace.stays for span in _spans(trace, stay)]
    message = next((stay.hop.message for stay in trace.stays if stay.hop.message), "")
    return {**listed(trace), "message": message, "spans": found}


@dataclass(frozen=True, slots=True)
class Span:
    """An interval of a request's time.

    Attributes:
        task: Name of the task or step.
        kind: `queue`, `gateway` from leaving the queue to the answer, `call` of a worker, or `model` while it runs.
        items: Number of items of the request; of all requests in the batch for `model`.
        start_ms: Start, in milliseconds since the request's arrival.
        end_ms: End, in milliseconds since the request's arrival.
        worker: Name of the worker; empty for `queue` and `gateway`.
        variant: Variant of the task; empty where unknown.
        outcome: Outcome of the stay or of the call.
    """

    task: str
    kind: str
    items: int
    start_ms: float
    end_ms: float
    worker: str = ""
    variant: str = ""
    outcome: str = ""


def _spans(trace: Trace, stay: Stay) -> Iterator[Span]:
    hop = stay.hop
    arrived_ms, taken_ms, ended_ms = map(trace.at_ms, (stay.arrived_s, hop.taken_s, stay.ended_s))
    items = sum(call.items for call in hop.calls if not call.again)
    if arrived_ms < taken_ms:
        yield Span(hop.task, "queue", items, arrived_ms, taken_ms, outcome=hop.outcome)
    yield Span(hop.task, "gateway", items, taken_ms, ended_ms, outcome=hop.outcome)
    for call, runs in zip(hop.calls, stay.runs, strict=True):
        sent_ms, back_ms = (trace.at_ms(hop.taken_s + ms / 1000) for ms in (call.sent_ms, call.ended_ms))
        yield Span(hop.task, "call", call.items, sent_ms, back_ms, call.worker, call.variant, call.outcome)
        for run in runs:
            began_ms = trace.at_ms(run.began_s)
            yield Span(hop.task, "model", run.items, began_ms, began_ms + run.took_ms, call.worker, call.variant)
