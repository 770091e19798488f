"""The one way to NVML: every call has a time limit, every change is told before and after it is made."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from jigsaw_triton.errors import MigTimeoutError

CALL_TIMEOUT_S = 30.0
"""A driver that is well answers within a second or two; one that is not may never answer."""

T = TypeVar("T")


class Record(Protocol):
    """Where changes are told."""

    def begin(self, call: str) -> int:
        """Before a change is made; returns what `end` takes."""
        ...

    def end(self, row: int, error: str) -> None:
        """After it: what it failed with, empty where it did not."""
        ...


class NoRecord:
    """Tells nobody."""

    def begin(self, call: str) -> int:
        """Does nothing."""
        return 0

    def end(self, row: int, error: str) -> None:
        """Does nothing."""


class Calls:
    """Makes calls, one at a time, in a thread that is given up with a call that does not return.

    A change that was given up may still take effect: whoever asked for it has to look.

    Args:
        timeout_s: Of each call.
        record: Of the changes.
    """

    def __init__(self, *, timeout_s: float = CALL_TIMEOUT_S, record: Record | None = None) -> None:
        self._timeout_s = timeout_s
        self._record: Record = record or NoRecord()
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def read(self, what: str, call: Callable[[], T]) -> T:
        """The result of a call, or of several, that change nothing; what they raise is raised.

        Args:
            what: For the message.
            call: Makes them.

        Raises:
            MigTimeoutError: They did not return in time.
        """
        with self._lock:
            # A worker that is waited for in vain is not asked again.
            worker, self._worker = self._worker or _Worker(), None
            result = worker.ask(call)
            if not wait([result], self._timeout_s).done:
                raise MigTimeoutError(
                    f"the driver has not answered within {self._timeout_s:g} s",
                    where=what,
                    hint="see what dmesg says; such a GPU mostly needs a reset, or the machine a reboot",
                )
            self._worker = worker
        value: T = result.result()
        return value

    def change(self, what: str, call: Callable[[], T]) -> T:
        """The same for one call that changes something, which is recorded before and after.

        Args:
            what: The call, as it is told.
            call: Makes it.

        Raises:
            MigTimeoutError: It did not return in time.
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
    """A thread that makes calls; nobody waits for it at the end of the process."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def ask(self, call: Callable[[], Any]) -> Future[Any]:
        """Has it made."""
        result: Future[Any] = Future()
        self._asked.put((call, result))
        return result

    def _run(self) -> None:
        while True:
            call, result = self._asked.get()
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)
