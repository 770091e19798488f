"""Makes all calls to NVML: each call has a timeout, and each change is recorded before and after it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from jigsaw_triton.errors import MigTimeoutError

CALL_TIMEOUT_S = 30.0
"""Timeout of a call in seconds. A healthy driver answers within a second or two; a broken one may never answer."""

T = TypeVar("T")


class Record(Protocol):
    """Recorder of changes."""

    def begin(self, call: str) -> int:
        """Records that a change is about to be made, and returns its row number for `end`."""
        ...

    def end(self, row: int, error: str) -> None:
        """Records the outcome of a change: the error, or an empty string on success."""
        ...


class NoRecord:
    """Recorder that keeps nothing."""

    def begin(self, call: str) -> int:
        """Does nothing."""
        return 0

    def end(self, row: int, error: str) -> None:
        """Does nothing."""


class Calls:
    """Makes calls one at a time in a thread, and abandons the thread when a call does not return.

    An abandoned change may still take effect, so the caller has to read the state again.

    Args:
        timeout_s: Timeout of each call in seconds.
        record: Recorder of changes.
    """

    def __init__(self, *, timeout_s: float = CALL_TIMEOUT_S, record: Record | None = None) -> None:
        self._timeout_s = timeout_s
        self._record: Record = record or NoRecord()
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def read(self, what: str, call: Callable[[], T]) -> T:
        """Runs a function that makes one or more calls without side effects, and returns its result.

        Exceptions from the function are passed on.

        Args:
            what: Description of the calls, for the error message.
            call: Function that makes the calls.

        Raises:
            MigTimeoutError: The function did not return in time.
        """
        with self._lock:
            # The worker is put back only after its call returns, so that one whose call timed out is not used again.
            worker, self._worker = self._worker or _Worker(), None
            result = worker.submit(call)
            if not wait([result], self._timeout_s).done:
                raise MigTimeoutError(
                    f"the driver has not answered within {self._timeout_s:g} s",
                    where=what,
                    hint="check dmesg; usually the GPU needs a reset, or the machine a reboot",
                )
            self._worker = worker
        value: T = result.result()
        return value

    def change(self, what: str, call: Callable[[], T]) -> T:
        """Makes one call that changes something, records it before and after, and returns its result.

        Args:
            what: Text of the call, for the record and the error message.
            call: Function that makes the call.

        Raises:
            MigTimeoutError: The call did not return in time.
        """
        row = self._record.begin(what)
        try:
            value = self.read(what, call)
        except BaseException as error:
            self._record.end(row, str(error) or type(error).__name__)
            raise
        self._record.end(row, "")
        return value


class _Worker:
    """Thread that makes calls. It is a daemon, so a call that hangs does not delay the end of the process."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queues a call and returns its future."""
        result: Future[Any] = Future()
        self._queue.put((call, result))
        return result

    def _run(self) -> None:
        while True:
            call, result = self._queue.get()
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)
