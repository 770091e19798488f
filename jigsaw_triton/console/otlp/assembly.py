"""Puts the records of sampled requests together, which several servers write at different moments. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jigsaw_triton.console.otlp.spans import Sampled
from jigsaw_triton.runtime.trace import Hop, Response, Run, TraceContext

SETTLE_S = 3.0
"""Seconds after the response for which the workers' records of a request are waited for. Workers of this machine write
them within milliseconds, and those of others are fetched once a second."""

PIPELINE_S = 10.0
"""Seconds without a new task after which a request to an ensemble or a BLS pipeline is complete. There is no record of
its response. A convention."""

LOST_S = 120.0
"""Seconds without a new record after which a request is exported without its response, which the gateway does not write
if it dies. Longer than the tasks of most graphs. A convention."""

MAX_OPEN = 10_000
"""Requests that are put together at a time, and calls of which the executions are kept; some 20 MB of memory."""


@dataclass(slots=True)
class _Open:
    context: TraceContext
    response: Response | None = None
    hops: list[Hop] = field(default_factory=list)
    due_s: float = 0.0


class Assembly:
    """Requests whose records are still awaited.

    Attributes:
        dropped: Requests that were given up because there were too many.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._open: dict[TraceContext, _Open] = {}
        self._runs: dict[tuple[str, int], list[Run]] = {}

    def add(self, record: Hop | Response | Run, now_s: float) -> None:
        """Adds a record, except the hop of a request that is not sampled.

        Args:
            record: The record.
            now_s: Time of a monotonic clock.
        """
        if isinstance(record, Run):
            for token in record.tokens:
                self._runs.setdefault((record.worker, token), []).append(record)
            while len(self._runs) > MAX_OPEN:
                self._runs.pop(next(iter(self._runs)))
        elif record.trace is not None:
            self._add(record, record.trace, now_s)

    def _add(self, record: Hop | Response, context: TraceContext, now_s: float) -> None:
        request = self._open.setdefault(context, _Open(context))
        if isinstance(record, Response):
            request.response = record
        else:
            request.hops.append(record)
        if request.response is not None:
            request.due_s = now_s + SETTLE_S
        else:
            request.due_s = now_s + (PIPELINE_S if request.hops[-1].partial else LOST_S)
        while len(self._open) > MAX_OPEN:
            self._open.pop(next(iter(self._open)))
            self.dropped += 1

    def complete(self, now_s: float) -> Iterator[Sampled]:
        """Removes and yields the requests that are complete.

        Args:
            now_s: Time of the same clock; infinite to get all requests.
        """
        for context in [context for context, request in self._open.items() if request.due_s <= now_s]:
            request = self._open.pop(context)
            keys = [(call.worker, call.number) for hop in request.hops for call in hop.calls]
            runs = {key: self._runs[key] for key in keys if key in self._runs}
            ordered = {key: sorted(found, key=lambda run: run.began_s) for key, found in runs.items()}
            yield Sampled(context, request.response, request.hops, ordered)
