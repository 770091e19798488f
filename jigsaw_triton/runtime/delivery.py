"""Delivers the parts of a batch to workers, side by side over as many slots as are free, and brings back the answers.

One thread, which polls while anything is under way.
"""

import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.batches import Batch, Failure, Part
from jigsaw_triton.runtime.connections import Connections, Outages
from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.dtypes import Arrays, to_triton
from jigsaw_triton.runtime.patience import Patience
from jigsaw_triton.runtime.protocol import RegionRefused, RequestError, WorkerFailed
from jigsaw_triton.runtime.regions import Placement, Regions
from jigsaw_triton.runtime.route import Route, RouteEntry
from jigsaw_triton.runtime.shares import Shares
from jigsaw_triton.runtime.slots import Lease, SlotPool
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.trace import id_for_worker
from jigsaw_triton.runtime.trips import Outcome, Trip
from jigsaw_triton.runtime.wire import Connection

SHORTEST_WAIT_S = 0.001
LONGEST_WAIT_S = 0.008
"""Between two looks for a free slot while nothing is under way; doubling from the shortest."""

LOOK_S = 0.002
"""Between two looks for a free slot while other parts of the batch are under way."""

SOCKETS_S = 60.0
"""For which a worker that refused shared memory gets all over its socket."""


@dataclass(slots=True)
class _Call:
    """A part under way."""

    connection: Connection
    part: Part
    lease: Lease
    sent_s: float
    placement: Placement | None
    number: int


class Delivery:
    """Carries batches of one task to its workers.

    Args:
        spec: The dispatcher's.
        route: Its route.
        run_dir: With `workers` and `slots`.
        counters: Of the dispatcher.
        log: Told of workers that fail.
        waiting: Asks Triton how many requests wait; None where it does not say.
        clock: Seconds.
        sleep: For seconds.
        secret: Of the deployment.
        shm_prefix: How the names of regions of shared memory begin; without it all goes over sockets.
    """

    def __init__(
        self,
        spec: DispatcherSpec,
        route: Route,
        run_dir: Path,
        counters: Counters,
        log: Callable[[str], None],
        waiting: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        secret: str = "",
        shm_prefix: str = "",
    ) -> None:
        self._spec = spec
        self._route = route
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self._slots = SlotPool(run_dir / "slots")
        self._shares = Shares(counters)
        timeouts_s = spec.call_timeout_ms / 1000, spec.usual_timeout_ms / 1000
        self._connections = Connections(run_dir, *timeouts_s, secret)
        self._regions = Regions(shm_prefix, self._connections.forget) if shm_prefix else None
        self._sockets_until: dict[str, float] = {}
        self._outages = Outages(clock)
        self._patience = Patience(spec.slack_ms / 1000, spec.slo_ms / 1000, waiting, clock)
        self._wait_s = spec.wait_timeout_ms / 1000
        self._give_up_at = 0.0
        self._last_failure = ""
        self._trips: list[Trip] = []
        self._request_id = ""
        self._sent = 0

    def run(self, batch: Batch, request_id: str = "") -> list[Trip]:
        """Returns when each request of the batch has its outputs, good until the next run, or its failure.

        Args:
            batch: To carry.
            request_id: Told to the workers, with the number of the trip; empty for none.

        Returns:
            What was sent, in the order in which it ended.
        """
        trips: list[Trip] = []
        self._trips = trips
        self._request_id = request_id
        self._sent = 0
        self._refresh()
        if self._regions is not None:
            self._regions.recycle()
        self._last_failure = ""
        self._give_up_at = self._clock() + self._wait_s
        self._patience.begin()
        pause_s = SHORTEST_WAIT_S
        calls: list[_Call] = []
        try:
            while True:
                self._send(batch, calls)
                if not calls and batch.head() is None:
                    return trips
                if (reason := self._patience.spent(batch, under_way=bool(calls))) is not None:
                    self._give_up(batch, calls, reason)
                elif calls:
                    self._collect(batch, calls)
                    pause_s = SHORTEST_WAIT_S
                elif self._clock() >= self._give_up_at:
                    batch.abandon(self._no_worker())
                else:
                    self._sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_WAIT_S)
                    self._refresh()
        finally:
            self._trips = []
            for call in calls:
                call.connection.close()
                self._discard(call.placement)
                call.lease.release()

    def close(self) -> None:
        """Closes connections and slot files, and drops shared memory."""
        if self._regions is not None:
            self._regions.close()
        self._connections.close()
        self._slots.close()

    def _refresh(self) -> None:
        if self._route.refresh():
            entries = self._route.entries
            self._slots.retain(entries)
            self._shares.route(entries)
            self._connections.retain(entries)
            self._outages.retain(entries)

    def _send(self, batch: Batch, calls: list[_Call]) -> None:
        """Sends what waits, as far as there are free slots."""
        while (head := batch.head()) is not None:
            lease = self._lease(head)
            if lease is None:
                return
            # Items whose shapes vary go in calls of their own, which the worker's scheduler may join.
            count, limit = (lease.entry.batch, 1) if self._spec.one_by_one else (1, lease.entry.batch)
            try:
                while count and batch.head() is not None and self._call(batch, batch.take(limit), lease, calls):
                    count -= 1
            finally:
                lease.release()

    def _lease(self, part: Part) -> Lease | None:
        entries = self._route.entries
        avoid = part.avoid
        if avoid and all(entry.worker in avoid for entry in entries):
            avoid = frozenset()
        usable = [entry for entry in entries if entry.worker not in avoid and not self._outages.is_out(entry)]
        for group in self._shares.in_turn(usable, len(part)):
            lease = self._slots.take(group)
            if lease is not None:
                return lease
        return None

    def _call(self, batch: Batch, part: Part, lease: Lease, calls: list[_Call]) -> bool:
        """Sends a part; whether the worker took it."""
        entry = lease.entry
        connection = None
        inputs, placement = self._place(part, batch, entry)
        sent_s = self._clock()
        self._sent += 1
        told = id_for_worker(self._request_id, self._sent) if self._request_id else ""
        try:
            connection = self._connections.take(entry)
            connection.send(entry.model, inputs, batch.output_names, placement, told)
        except WorkerFailed as error:
            if connection is not None:
                self._connections.drop(entry, connection)
            self._discard(placement)
            self._trips.append(Trip(part, entry, sent_s, self._clock(), "failed", number=self._sent))
            self._worker_failed(batch, part, entry, error)
            return False
        except RegionRefused as error:
            assert connection is not None
            self._log(
                f"worker {entry.worker} takes no shared memory, large tensors go over its socket for {SOCKETS_S:g} s:"
                f" {error}"
            )
            self._connections.give_back(entry, connection)
            self._discard(placement)
            self._sockets_until[entry.worker] = self._clock() + SOCKETS_S
            return self._call(batch, part, lease, calls)
        lease.hold()
        self._shares.sent(entry, len(part))
        calls.append(_Call(connection, part, lease, sent_s, placement, self._sent))
        return True

    def _place(self, part: Part, batch: Batch, entry: RouteEntry) -> tuple[Arrays, Placement | None]:
        """A part's inputs, joined, and where in shared memory the large tensors of the call are."""
        if self._regions is None or entry.address or self._clock() < self._sockets_until.get(entry.worker, 0.0):
            return part.inputs(), None
        pieces = dict(part.pieces())
        sizes = {name: (to_triton(of[0].dtype), sum(piece.nbytes for piece in of)) for name, of in pieces.items()}
        placement = self._regions.place(sizes, batch.outputs, len(part))
        inputs = {}
        for name, of in pieces.items():
            if placement is not None and (span := placement.inputs.get(name)) is not None:
                shape = (sum(map(len, of)), *of[0].shape[1:])
                inputs[name] = np.concatenate(of, out=placement.region.view(span, sizes[name][0], shape))
            else:
                inputs[name] = of[0] if len(of) == 1 else np.concatenate(of)
        return inputs, placement

    def _discard(self, placement: Placement | None) -> None:
        """The worker may still write there, whatever it is that it does."""
        if placement is not None and self._regions is not None:
            self._regions.discard(placement.region)

    def _collect(self, batch: Batch, calls: list[_Call]) -> None:
        """Waits until something under way is answered or late, or until a slot may be free for what waits."""
        poll = select.poll()
        for call in calls:
            poll.register(call.connection, select.POLLIN)
        timeout_s = LOOK_S
        if batch.head() is None:
            late_s = min(call.connection.deadline for call in calls) - time.monotonic()
            timeout_s = max(0.0, min(late_s, self._patience.left_s(under_way=True)))
        ready = {descriptor for descriptor, _ in poll.poll(1000 * timeout_s)}
        for call in list(calls):
            if call.connection.fileno() in ready or call.connection.deadline <= time.monotonic():
                calls.remove(call)
                self._receive(batch, call)

    def _give_up(self, batch: Batch, calls: list[_Call], reason: str) -> None:
        """Ends a batch, whatever is under way, so that the instance can refuse what came after it."""
        while calls:
            call = calls.pop()
            call.connection.expire()
            self._receive(batch, call)
        batch.abandon(Failure(f"task {self._spec.task}: {reason}{self._last_words()}", "worker"))

    def _receive(self, batch: Batch, call: _Call) -> None:
        entry = call.lease.entry
        outcome: Outcome = "refused"
        outputs = None
        try:
            outputs = call.connection.receive()
            batch.answered(call.part, outputs)
        except WorkerFailed as error:
            outcome = "failed"
            self._connections.drop(entry, call.connection)
            self._discard(call.placement)
            self._worker_failed(batch, call.part, entry, error)
        except RequestError as error:
            self._answered(call)
            batch.refused(call.part, self._failure(entry, error.reason, at_fault=error.status == 400))
        except ValueError as error:
            self._answered(call)
            batch.refused(call.part, self._failure(entry, str(error), at_fault=False))
        else:
            outcome = "answered"
            self._connections.answered(entry)
            self._answered(call)
        finally:
            call.lease.release()
            sent, received = call.connection.sent_bytes, call.connection.received_bytes
            self._trips.append(
                Trip(call.part, entry, call.sent_s, self._clock(), outcome, sent, received, outputs, call.number)
            )

    def _answered(self, call: _Call) -> None:
        self._connections.give_back(call.lease.entry, call.connection)
        self._outages.answered(call.lease.entry)
        self._give_up_at = self._clock() + self._wait_s

    def _worker_failed(self, batch: Batch, part: Part, entry: RouteEntry, error: WorkerFailed) -> None:
        self._outages.failed(entry)
        self._last_failure = f"worker {entry.worker} failed: {error.reason}"
        self._log(f"task {self._spec.task}: {self._last_failure}")
        if error.executed:
            self._give_up_at = self._clock() + self._wait_s
        before = f"; before it worker {', '.join(sorted(part.avoid))}" if part.avoid else ""
        failure = Failure(f"task {self._spec.task}: {self._last_failure}{before}", "worker")
        batch.lost(part, entry.worker, failure, executed=error.executed)

    def _failure(self, entry: RouteEntry, reason: str, *, at_fault: bool) -> Failure:
        return Failure(f"task {self._spec.task}: worker {entry.worker}: {reason}", "request" if at_fault else "model")

    def _no_worker(self) -> Failure:
        task, workers = self._spec.task, len(self._route.entries)
        message = f"task {task}: none of its {workers} workers had room within {self._wait_s:g} s{self._last_words()}"
        return Failure(message, "worker")

    def _last_words(self) -> str:
        return f"; {self._last_failure}" if self._last_failure else ""
