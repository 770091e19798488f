"""The file of a journal, and the copy of its tables in memory.

The controller keeps in memory what it writes, except logs that only people read. So the file may fill its disk, be
damaged or be deleted while the controller runs: `JournalFile.sync` writes it again from memory.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jigsaw_triton.controller.persistence.epoch import (
    EPOCH_FACT,
    SupersededError,
    check_epoch,
    check_gateway,
    gateway_epoch,
    next_epoch,
    number_of,
)
from jigsaw_triton.controller.persistence.reader import ROOM, JournalReader
from jigsaw_triton.controller.persistence.schema import SCHEMA, SCHEMA_VERSION, check_version, copy, upgrade
from jigsaw_triton.controller.persistence.sqlite_file import (
    COMPANIONS,
    NO_OVERWRITING,
    OpenedFile,
    check_whole,
    connect,
    flush_log,
    is_damage,
    move_aside,
    reason,
    transaction,
)
from jigsaw_triton.errors import StateError

_LINES_AT_ONCE = 1000
"""Number of events in one write of the file. SQLite limits the values in a statement."""

_LOG_PAGES = 16_384
"""Pages of the write-ahead log after which a change waits until it is copied into the file, if nobody calls `flush`:
four times as many as `flush` leaves in the log."""


class JournalFile(JournalReader):
    """Tables in memory and their copy in a file. Any thread may call it.

    Opening the file begins an epoch. Any call that would change the file after another process has begun the next epoch
    raises SupersededError instead.

    Args:
        path: File, created if missing. Only its owner can read it. A damaged file is moved aside.
        on_superseded: Callback for the end of the epoch, before SupersededError is raised; a controller ends there.
        gateway: File in which the gateway keeps the highest epoch that it knows; None if no gateway gets routes from
            this process.

    Raises:
        StateError: The file cannot be opened or created, or has a newer version.
    """

    def __init__(
        self,
        path: Path,
        on_superseded: Callable[[SupersededError], None] = lambda _: None,
        gateway: Path | None = None,
    ) -> None:
        self._path = path
        self._on_superseded = on_superseded
        self._gateway = gateway
        self._epoch = ""
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._failure = ""
        self._file: sqlite3.Connection | None = None
        self._opened: OpenedFile | None = None
        self._flushed = 0
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute(NO_OVERWRITING)
        self._db.executescript(SCHEMA)
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"the journal cannot be opened ({error})", where=str(path), hint=ROOM) from error

    @property
    def failure(self) -> str:
        """Reason why the file lacks the latest changes: `cannot be written: ...`. Empty if it has all of them."""
        return self._failure

    @property
    def epoch(self) -> int:
        """Number of this process's epoch, which its routes carry."""
        return number_of(self.fact(EPOCH_FACT))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close_file()
            self._db.close()

    def sync(self) -> None:
        """Writes the file again if it is missing, damaged or incomplete. The controller calls it every second.

        Raises:
            SupersededError: Another process has begun an epoch.
        """
        with self._lock:
            try:
                self.check_epoch()
                if self._file is None or self._opened is None or not self._opened.is_intact():
                    self._renew()
                elif self._failure:
                    with transaction(self._file):
                        self._check_epoch(self._file)
                        copy(self._db, self._file)
                    self._epoch = self.fact(EPOCH_FACT)
                else:
                    return
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                return
            if self._failure:
                self._failure = ""
                self.event("journal", "the journal is complete again")

    def flush(self) -> None:
        """Waits until the disk has all changes. Others may change the journal meanwhile.

        A thread of the controller calls it every second, so that no change has to wait for the disk. A long write-ahead
        log is copied into the file and begun anew. Only a change that comes just then waits for the disk, too.
        """
        with self._lock:
            if self._file is None or self._file.total_changes == self._flushed:
                return
            self._flushed = self._file.total_changes
        # `sync` reports and repairs a file that is missing or damaged, or whose disk is full.
        with contextlib.suppress(sqlite3.Error, OSError):
            with self._flushing:
                copied = flush_log(self._path)
            if copied:
                self._begin_log()

    def _begin_log(self) -> None:
        """Makes the first change after the log was copied, for which SQLite waits until the disk has the log's header.

        Without the wait, frames of the last log could count as new ones after a power failure.
        """
        with self._lock:
            if self._file is not None:
                self.keep_fact(EPOCH_FACT, self.fact(EPOCH_FACT))

    def check_epoch(self) -> None:
        """Checks that no other process has begun an epoch. Whoever changes a server without a record of it calls this.

        The journal shows it, and so does the gateway once it has read a route of the other process.

        Raises:
            SupersededError: Another process has begun an epoch.
        """
        with self._lock:
            if self._gateway is not None:
                with self._telling_superseded():
                    check_gateway(self._gateway, self.fact(EPOCH_FACT))
            # A file that is missing or damaged does not show another epoch.
            with contextlib.suppress(sqlite3.Error):
                if self._file is not None and self._opened is not None and self._opened.is_at_path():
                    self._check_epoch(self._file)
                else:
                    with contextlib.closing(connect(self._path)) as file:
                        self._check_epoch(file)

    def event(self, kind: str, text: str, code: int = 0) -> None:
        """Adds a line to the event log."""
        self.add_events([(kind, text, code)])

    def add_events(self, lines: Sequence[tuple[str, str, int]]) -> None:
        """Adds lines to the event log: a change of a large cluster has thousands.

        Args:
            lines: Kind, text and exit code of each line.
        """
        at = now()
        for begin in range(0, len(lines), _LINES_AT_ONCE):
            part = lines[begin : begin + _LINES_AT_ONCE]
            rows = ", ".join(["(?, ?, ?, ?)"] * len(part))
            values = tuple(value for line in part for value in (at, *line))
            self._change(f"INSERT INTO events (at, kind, text, code) VALUES {rows}", values)

    def keep_fact(self, name: str, value: str) -> None:
        """Records a value that concerns the whole deployment."""
        self._change("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def surpass(self, number: int) -> None:
        """Begins an epoch above a number that another process of this deployment has reached and left.

        Args:
            number: Number of an epoch. If this process is in a later one, nothing changes.
        """
        with self._lock:
            if self.epoch <= number:
                self.keep_fact(EPOCH_FACT, next_epoch("", number))
                if self._file is not None and not self._failure:
                    self._epoch = self.fact(EPOCH_FACT)

    def _open(self) -> None:
        """Opens the file and reads it into memory, or creates it. A damaged one is moved aside. Begins an epoch."""
        if not self._path.exists():
            self._begin_epoch()
            self._create()
            return
        try:
            self._connect()
            assert self._file is not None
            check_whole(self._file)
            check_version(self._file, self._path)
            upgrade(self._file)
            with transaction(self._db):
                copy(self._file, self._db)
            self._epoch = self.fact(EPOCH_FACT)
            self._begin_epoch()
        except sqlite3.DatabaseError as error:
            self._close_file()
            if not is_damage(error):
                raise
            self._begin_epoch()
            self._renew()
        except BaseException:
            self._close_file()
            raise

    def _begin_epoch(self) -> None:
        """Ends the epoch of the process that wrote the file before. If the file cannot be written, `sync` does so."""
        known = gateway_epoch(self._gateway) if self._gateway is not None else 0
        epoch = next_epoch(self._epoch, known)
        self.keep_fact(EPOCH_FACT, epoch)
        if self._file is not None and not self._failure:
            self._epoch = epoch

    def _check_epoch(self, file: sqlite3.Connection) -> None:
        """Checks that this process still owns the journal.

        Raises:
            SupersededError: Another process owns the journal.
        """
        with self._telling_superseded():
            check_epoch(file, self._epoch, str(self._path))

    @contextlib.contextmanager
    def _telling_superseded(self) -> Iterator[None]:
        """Calls the callback for the end of the epoch if the `with` block finds that it has ended."""
        try:
            yield
        except SupersededError as error:
            self._on_superseded(error)
            raise

    def _connect(self) -> None:
        # SQLite's locks would end with any later descriptor of the file that this process closes.
        self._opened = OpenedFile(self._path)
        self._file = connect(self._path)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=NORMAL")
        self._file.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        # SQLite would otherwise keep the size of a log file that begins anew, which would then seem to be long.
        self._file.execute("PRAGMA journal_size_limit=0")
        self._file.execute(NO_OVERWRITING)
        self._flushed = self._file.total_changes

    def _close_file(self) -> None:
        """Closes the file once no flush is in progress, whose locks would end with this descriptor.

        That may take as long as the disk does, like the closing itself and the new file after it.
        """
        with self._flushing:
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _renew(self) -> None:
        """Moves aside whatever is at the path, and writes a new file from memory."""
        self._close_file()
        aside = move_aside(self._path)
        lost = f"is damaged and was moved to {aside}" if aside is not None else "is missing"
        self._create()
        self.event("error", f"the journal's file {lost}; a new one was written, without the record of earlier actions")

    def _create(self) -> None:
        """Writes a new file from memory and opens it."""
        fresh = self._path.with_name(f".{self._path.name}.new")
        for end in ("", *COMPANIONS):
            fresh.with_name(fresh.name + end).unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with contextlib.closing(connect(fresh)) as file:
            file.executescript(SCHEMA)
            with transaction(file):
                copy(self._db, file)
            file.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        with self._flushing:
            for end in COMPANIONS:
                # SQLite would read the log of a deleted file as that of the new one.
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)
            fresh.replace(self._path)
        self._connect()
        self._epoch = self.fact(EPOCH_FACT)

    def _change(self, statement: str, values: tuple[Any, ...], *, durable: bool = False) -> None:
        """Changes a table in the file and in memory.

        Args:
            statement: Statement of SQL.
            values: Values in the statement.
            durable: True if nothing may change unless the file does.

        Raises:
            StateError: The change is `durable`, and the file cannot be written.
        """
        with self._lock:
            if durable:
                self._insist(statement, values)
            else:
                self._attempt(statement, values)
            self._db.execute(statement, values)

    def _insist(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        """Executes a statement in the file, which is written again first if necessary.

        Raises:
            StateError: The file cannot be written.
        """
        cursor = self._attempt(statement, values)
        if cursor is None:
            self.sync()
            cursor = self._attempt(statement, values)
        if cursor is None:
            raise StateError(f"the journal {self._failure}", where=str(self._path), hint=ROOM)
        return cursor

    def _attempt(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor | None:
        """Executes a statement in the file. Returns None if the file lacks earlier changes or cannot be written.

        Raises:
            SupersededError: Another process has begun an epoch.
        """
        if self._failure or self._file is None:
            return None
        try:
            with transaction(self._file):
                self._check_epoch(self._file)
                return self._file.execute(statement, values)
        except sqlite3.Error as error:
            self._fail(error)
            return None

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        """Notes that the file lacks changes, and logs the first failure. A damaged file is used no more."""
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            self._close_file()
        before, self._failure = self._failure, f"cannot be written: {reason(error)}"
        if not before:
            self.event("error", f"the journal {self._failure}. What serves goes on; changes of the plan wait")


def now() -> str:
    """Returns the current time as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
