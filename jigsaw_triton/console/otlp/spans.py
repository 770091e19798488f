"""Spans of a sampled request, in OpenTelemetry's model. Pure functions.

    infer GRAPH            server    the gateway
      TASK                 internal  a task, a Python step, or a chain of tasks
        queue TASK         internal  its wait in the task's queue
        call TASK          client    a batch at a worker that has items of the request
          serve TASK       server    the worker
            execute TASK   internal  a model of the worker

Attributes have the names of OpenTelemetry's semantic conventions where these have one, and else begin with `jigsaw.`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from jigsaw_triton.runtime.trace import Call, Hop, Response, Run, TraceContext

ANSWERED = "answered"

GATEWAY = "gateway"
"""Name of the gateway among the servers that spans are of."""

Attribute = str | int | bool


class Kind(IntEnum):
    """Kinds of spans, with their numbers in OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Span:
    """A span.

    Attributes:
        server: Server that it is of: the gateway, or a worker.
        trace: Id of its trace, 16 bytes.
        id: Id of the span, 8 bytes.
        parent: Id of its parent; empty for none.
        state: State of its trace, in the form of the header `tracestate`.
        remote: True if the parent is a span of another server.
        name: Name, of which there are few.
        kind: Role of the span.
        start_ns: Start, in nanoseconds since 1970.
        end_ns: End, not before the start.
        attributes: Attributes by name.
        error: Message of the failure; None if it did not fail.
    """

    server: str
    trace: bytes
    id: bytes
    parent: bytes
    state: str
    remote: bool
    name: str
    kind: Kind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """All that is known of a sampled request.

    Attributes:
        context: Place of the request in its trace.
        response: Response; None if there is no record of it.
        hops: Tasks of the request, in the order in which they ended.
        runs: Executions of its batches, by worker and token of the call.
    """

    context: TraceContext
    response: Response | None
    hops: Sequence[Hop]
    runs: Mapping[tuple[str, int], Sequence[Run]]


def spans(request: Sampled, new_id: Callable[[], bytes]) -> list[Span]:
    """Returns the spans of a request, parents before their children.

    Processes read their clocks at different moments, and machines have different clocks. A span therefore begins and
    ends within its parent, if necessary later or earlier than it was measured.

    Args:
        request: The request, with a response or a hop at least.
        new_id: Function that returns a new id of a span.
    """
    root = _root(request)
    return [root, *(span for hop in request.hops for span in _stay(root, hop, request.runs, new_id))]


def _root(request: Sampled) -> Span:
    """Returns the span of the gateway, from the tasks if there is no record of the response."""
    response, hops, context = request.response, request.hops, request.context
    failed = next((hop for hop in hops if hop.outcome != ANSWERED), None)
    if response is not None:
        start_ns, end_ns = _interval(response.arrived_s, response.took_ms)
        graph, client_id = response.graph, response.request
        outcome, message = response.outcome, response.message
    else:
        start_ns = min(_interval(*_stayed(hop))[0] for hop in hops)
        end_ns = max(_interval(*_stayed(hop))[1] for hop in hops)
        graph, client_id = hops[0].graph, hops[0].request
        outcome, message = (failed.outcome, failed.message) if failed is not None else (ANSWERED, "")
    attributes: dict[str, Attribute] = {"jigsaw.graph": graph}
    if client_id and client_id != context.id:
        attributes["jigsaw.request.id"] = client_id
    if response is not None:
        attributes |= {"jigsaw.model": response.model, "jigsaw.items": response.items}
    return Span(
        server=GATEWAY,
        trace=bytes.fromhex(context.id),
        id=bytes.fromhex(context.span),
        parent=bytes.fromhex(context.parent),
        state=context.state,
        remote=bool(context.parent),
        name=f"infer {graph}",
        kind=Kind.SERVER,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=attributes | _failure(outcome),
        error=None if outcome == ANSWERED else message,
    )


def _stay(
    root: Span, hop: Hop, runs: Mapping[tuple[str, int], Sequence[Run]], new_id: Callable[[], bytes]
) -> Iterator[Span]:
    """Yields the spans of a request at a task."""
    task = _child(
        root,
        new_id(),
        hop.task,
        _interval(*_stayed(hop)),
        attributes={"jigsaw.task": hop.task, "jigsaw.route": hop.route, **_failure(hop.outcome)},
        error=None if hop.outcome == ANSWERED else hop.message,
    )
    yield task
    waited = _interval(_stayed(hop)[0], hop.waited_ms)
    yield _child(task, new_id(), f"queue {hop.task}", waited, attributes={"jigsaw.task": hop.task})
    for call in hop.calls:
        yield from _call(task, hop, call, runs.get((call.worker, call.number), ()), new_id)


def _call(task: Span, hop: Hop, call: Call, runs: Sequence[Run], new_id: Callable[[], bytes]) -> Iterator[Span]:
    """Yields the spans of a batch: of the gateway's call, of the worker, and of its models."""
    attributes: dict[str, Attribute] = {
        "http.request.method": "POST",
        "url.path": f"/v2/models/{call.model}/infer",
        "network.protocol.name": "http",
        "network.transport": "unix",
        "server.address": f"{call.worker}.sock",
        "jigsaw.task": hop.task,
        "jigsaw.worker": call.worker,
        "jigsaw.model": call.model,
        "jigsaw.variant": call.variant,
        "jigsaw.items": call.items,
        "jigsaw.batch.size": call.batch,
    }
    if call.again:
        attributes["http.request.resend_count"] = 1
    sent_s = hop.taken_s + call.sent_ms / 1000
    made = _child(
        task,
        bytes.fromhex(call.span),
        f"call {hop.task}",
        _interval(sent_s, call.ended_ms - call.sent_ms),
        kind=Kind.CLIENT,
        attributes=attributes | _failure(call.outcome),
        error=None if call.outcome == ANSWERED else f"the worker {call.outcome} the batch",
    )
    yield made
    if not runs:
        return
    intervals = [_interval(run.began_s, run.took_ms) for run in runs]
    whole = min(start for start, _ in intervals), max(end for _, end in intervals)
    ahead_ns = _ahead_ns(whole, made)
    intervals = [(start - ahead_ns, end - ahead_ns) for start, end in intervals]
    served = _child(
        made,
        new_id(),
        f"serve {hop.task}",
        (whole[0] - ahead_ns, whole[1] - ahead_ns),
        server=call.worker,
        kind=Kind.SERVER,
        attributes={"jigsaw.task": hop.task, "jigsaw.worker": call.worker},
    )
    yield served
    for run, interval in zip(runs, intervals, strict=True):
        described: dict[str, Attribute] = {"jigsaw.model": run.model, "jigsaw.batch.size": run.items}
        yield _child(served, new_id(), f"execute {hop.task}", interval, attributes=described)


def _child(
    parent: Span,
    span: bytes,
    name: str,
    interval: tuple[int, int],
    *,
    server: str = "",
    kind: Kind = Kind.INTERNAL,
    attributes: Mapping[str, Attribute],
    error: str | None = None,
) -> Span:
    start_ns = min(max(interval[0], parent.start_ns), parent.end_ns)
    return Span(
        server=server or parent.server,
        trace=parent.trace,
        id=span,
        parent=parent.id,
        state=parent.state,
        remote=bool(server),
        name=name,
        kind=kind,
        start_ns=start_ns,
        end_ns=min(max(interval[1], start_ns), parent.end_ns),
        attributes=attributes,
        error=error,
    )


def _ahead_ns(measured: tuple[int, int], call: Span) -> int:
    """Returns the nanoseconds by which a worker's clock is certainly ahead of the gateway's; negative if it is behind.

    Args:
        measured: Start and end of the worker's part, by its own clock.
        call: Span of the call, which it belongs into.
    """
    start_ns, end_ns = measured
    if end_ns - start_ns > call.end_ns - call.start_ns:
        return start_ns - call.start_ns
    return max(end_ns - call.end_ns, 0) or min(start_ns - call.start_ns, 0)


def _failure(outcome: str) -> dict[str, Attribute]:
    return {} if outcome == ANSWERED else {"error.type": outcome}


def _stayed(hop: Hop) -> tuple[float, float]:
    """Returns the arrival at a task, in seconds since 1970, and the milliseconds until the answer."""
    return hop.taken_s - hop.waited_ms / 1000, hop.waited_ms + hop.returned_ms


def _interval(start_s: float, took_ms: float) -> tuple[int, int]:
    """Returns start and end in nanoseconds since 1970. The records have microseconds."""
    start_us = round(start_s * 1e6)
    return 1000 * start_us, 1000 * (start_us + max(round(took_ms * 1000), 0))
