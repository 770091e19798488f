"""Keep-alive connections to workers, how long each may take, and which are left out for a moment as they failed."""

import time
from collections.abc import Callable
from pathlib import Path

from jigsaw_triton.runtime.protocol import WorkerFailed
from jigsaw_triton.runtime.regions import Region
from jigsaw_triton.runtime.route import RouteEntry
from jigsaw_triton.runtime.wire import Connection

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 2.0


class Connections:
    """Idle connections by worker.

    Args:
        run_dir: Holds `workers/<worker>.sock`.
        timeout_s: For connecting and for each inference.
        usual_timeout_s: The same where the model has answered since its worker was started, as far as can be seen.
        secret: Of the deployment.
    """

    def __init__(self, run_dir: Path, timeout_s: float, usual_timeout_s: float, secret: str = "") -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._usual_timeout_s = usual_timeout_s
        self._have_answered: set[tuple[str, str]] = set()
        self._secret = secret
        self._idle: dict[str, list[Connection]] = {}

    def take(self, entry: RouteEntry) -> Connection:
        """An idle connection that still stands, else a new one.

        Raises:
            WorkerFailed: Nothing listens there.
        """
        address = self._address(entry)
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if not connection.is_stale():
                connection.limit(self._timeout_of(entry))
                return connection
            connection.close()
            self._may_start_again(entry)
        try:
            return Connection(address, self._timeout_of(entry), self._secret)
        except WorkerFailed:
            self._may_start_again(entry)
            raise

    def give_back(self, entry: RouteEntry, connection: Connection) -> None:
        """Keeps a connection, whose last answer was received in full, for the next."""
        self._idle.setdefault(self._address(entry), []).append(connection)

    def drop(self, entry: RouteEntry, connection: Connection) -> None:
        """Closes a connection on which the worker failed."""
        if time.monotonic() < connection.deadline:
            self._may_start_again(entry)
        connection.close()

    def answered(self, entry: RouteEntry) -> None:
        """The model has answered: it is loaded, and has been executed."""
        self._have_answered.add((entry.worker, entry.model))

    def retain(self, entries: tuple[RouteEntry, ...]) -> None:
        """Closes idle connections to all but these: a server with open ones is slow to stop."""
        self._have_answered &= {(entry.worker, entry.model) for entry in entries}
        named = {self._address(entry) for entry in entries}
        for address in self._idle.keys() - named:
            for connection in self._idle.pop(address):
                connection.forget_all()
                connection.close()

    def forget(self, region: Region) -> None:
        """Has the workers unmap a region, as far as they were told of it over connections that are idle now."""
        for idle in self._idle.values():
            for connection in tuple(idle):
                if not connection.forget(region.name):
                    idle.remove(connection)
                    connection.close()

    def close(self) -> None:
        """Closes all idle connections."""
        self.retain(())

    def _timeout_of(self, entry: RouteEntry) -> float:
        known = (entry.worker, entry.model) in self._have_answered
        return self._usual_timeout_s if known else self._timeout_s

    def _may_start_again(self, entry: RouteEntry) -> None:
        """The worker is gone, or does not have the model: what it does next takes as long as what it does first."""
        self._have_answered = {key for key in self._have_answered if key[0] != entry.worker}

    def _address(self, entry: RouteEntry) -> str:
        return entry.address or f"unix:{self._run_dir}/workers/{entry.worker}.sock"


class Outages:
    """Which models on which workers are left out, for a pause that doubles with each failure in a row.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._out: dict[tuple[str, str], tuple[float, float]] = {}

    def failed(self, entry: RouteEntry) -> None:
        """It failed: out for longer than last time."""
        key = (entry.worker, entry.model)
        _, pause_s = self._out.get(key, (0.0, FIRST_PAUSE_S / 2))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._out[key] = (self._clock() + pause_s, pause_s)

    def answered(self, entry: RouteEntry) -> None:
        """It answered: all forgiven."""
        if self._out:
            self._out.pop((entry.worker, entry.model), None)

    def is_out(self, entry: RouteEntry) -> bool:
        """Whether to leave it out now."""
        if not self._out:
            return False
        until, _ = self._out.get((entry.worker, entry.model), (0.0, 0.0))
        return self._clock() < until

    def retain(self, entries: tuple[RouteEntry, ...]) -> None:
        """Forgets what these entries do not name."""
        named = {(entry.worker, entry.model) for entry in entries}
        self._out = {key: value for key, value in self._out.items() if key in named}
