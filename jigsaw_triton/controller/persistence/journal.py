"""The controller's journal, an SQLite file: events, actions, the core's state and the deployment's MIG instances.

The controller keeps in memory what it writes, except logs that only people read. So the journal's file may fill its
disk, be damaged or be deleted while the controller runs: `Journal.sync` writes it again from memory.
"""

import contextlib
import errno
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, SupersededError, check_epoch, next_epoch, transaction
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement
from jigsaw_triton.spec.words import LOCAL_NODE

SCHEMA_VERSION = 8

KEPT = {"events": 20_000, "actions": 20_000, "generations": 200}
"""Table -> number of its last rows to keep, plus a few between two trims. A deployment may run for years."""

RESTORABLE = 20
"""Number of generations, the latest, to which a rollback can return."""

_TRIM_INTERVAL = 64

_LINES_AT_ONCE = 1000
"""Number of events in one write of the file. SQLite limits the values in a statement."""

_IN_MEMORY = ("events", "instances", "creations", "destructions", "facts", "generations", "checkpoints")
"""Tables that the controller keeps in memory, too."""

_GENERATION_FACT = "last generation"

_ROOM = "use a folder that this user can write to, with free disk space"
_REPAIR = "`jigsaw-triton deploy` and `jigsaw-triton down` move a damaged journal aside"

_MAGIC = b"SQLite format 3\0"
"""First bytes of every SQLite file."""

_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)
"""Primary result codes of a file that is not, or no longer, a journal. SQLITE_ERROR reports a missing table."""

_COMPANIONS = ("-wal", "-shm")
"""Ends of the names of the files that SQLite keeps beside its main file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
  code INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS actions (
  id INTEGER PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
  begun TEXT NOT NULL, ended TEXT, error TEXT, node TEXT NOT NULL DEFAULT 'local');
CREATE TABLE IF NOT EXISTS instances (
  uuid TEXT PRIMARY KEY, node TEXT NOT NULL, gpu INTEGER NOT NULL, slice TEXT NOT NULL, start INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS creations (
  node TEXT NOT NULL, gpu INTEGER NOT NULL, slice TEXT NOT NULL, start INTEGER NOT NULL, stage INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS destructions (uuid TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS generations (
  number INTEGER PRIMARY KEY, at TEXT NOT NULL, reason TEXT NOT NULL, plan TEXT NOT NULL,
  by TEXT NOT NULL DEFAULT 'user', outcome TEXT NOT NULL DEFAULT '', version TEXT NOT NULL DEFAULT '', state BLOB);
CREATE TABLE IF NOT EXISTS checkpoints (id INTEGER PRIMARY KEY, version TEXT NOT NULL, state BLOB NOT NULL);
"""

_LAST_WHOLE = "SELECT MAX(id) FROM checkpoints WHERE version != ''"
"""Query of the last row with a whole state. The rows after it have what has changed since, and no version."""

_ADDED = {
    "generations": {
        "by": "TEXT NOT NULL DEFAULT 'user'",
        "outcome": "TEXT NOT NULL DEFAULT ''",
        "version": "TEXT NOT NULL DEFAULT ''",
        "state": "BLOB",
    },
    "actions": {"node": f"TEXT NOT NULL DEFAULT '{LOCAL_NODE}'"},
}
"""Table -> columns that journals of earlier versions lack."""

STOPPED, LEFT = "stopped", "left"
"""Kinds of the last event of a deployment that has been taken down, and of a controller that left its servers."""


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """A line of the event log.

    Attributes:
        id: Number of the event, which increases.
        at: Time in UTC, in ISO 8601 format.
        kind: Kind of the event, one word.
        text: Sentence that describes the event.
        code: Exit code for an error that ended a change; 0 for any other event.
    """

    id: int
    at: str
    kind: str
    text: str
    code: int


Outcome = Literal["serves", "replaced", "failed", "unchanged", "stopped"]
"""Outcome of a generation: it serves, served until another replaced it, failed and was undone, was what ran already, or
served until the deployment was taken down."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A generation in the history of a deployment.

    Attributes:
        number: Number of the generation.
        at: Time at which it was planned, in ISO 8601.
        by: `user`, or `load` if the measured load caused it.
        reason: Cause of the change.
        slices: Compute slices that its plan uses.
        slices_total: Compute slices of the cluster.
        outcome: Outcome; empty while the change to the generation is in progress. See `Outcome`.
    """

    number: int
    at: str
    by: str
    reason: str
    slices: int
    slices_total: int
    outcome: str


class JournalReader:
    """A journal that another process may be writing. Each call returns the current rows. Any thread may call it.

    Args:
        path: Journal file.

    Raises:
        StateError: The file cannot be opened, is not a journal, or has a newer version. Later calls raise it, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = _connect(path)
            try:
                _check_version(self._db, path)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def events(self, after: int = 0, limit: int = 1000) -> tuple[JournalEvent, ...]:
        """Returns the last `limit` events with an id greater than `after`, oldest first."""
        rows = self._rows(
            "SELECT id, at, kind, text, code FROM events WHERE id > ? ORDER BY id DESC LIMIT ?", (after, limit)
        )
        return tuple(JournalEvent(*row) for row in reversed(rows))

    def creations(self) -> Mapping[tuple[GpuId, Placement], CreationStage]:
        """Returns unfinished creations and the stages that they may have reached."""
        rows = self._rows("SELECT node, gpu, slice, start, stage FROM creations")
        return {(GpuId(node, gpu), Placement(start, kind)): CreationStage(s) for node, gpu, kind, start, s in rows}

    def destructions(self) -> tuple[str, ...]:
        """Returns the UUIDs of instances whose destruction has begun but has not been recorded as finished."""
        return tuple(uuid for (uuid,) in self._rows("SELECT uuid FROM destructions"))

    def instances(self) -> tuple[MigInstance, ...]:
        """Returns the MIG instances that are recorded as ours."""
        rows = self._rows("SELECT uuid, node, gpu, slice, start FROM instances ORDER BY uuid")
        return tuple(
            MigInstance(GpuId(node, gpu), Placement(start, kind), uuid) for uuid, node, gpu, kind, start in rows
        )

    def fact(self, name: str) -> str:
        """Returns the value recorded last under a name; empty if there is none."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def checkpoint(self) -> tuple[str, bytes]:
        """Version and state of the last checkpoint; both empty where there is none."""
        rows = self._rows(f"SELECT version, state FROM checkpoints WHERE id >= ({_LAST_WHOLE}) ORDER BY id")
        return (str(rows[0][0]), b"".join(state for _, state in rows)) if rows else ("", b"")

    def generations(self, limit: int = KEPT["generations"]) -> tuple[Revision, ...]:
        """Returns the latest generations, oldest first.

        Args:
            limit: Number of generations to return.
        """
        rows = self._rows(
            "SELECT number, at, by, reason, plan, outcome FROM generations ORDER BY number DESC LIMIT ?", (limit,)
        )
        found = []
        for number, at, by, reason, text, outcome in reversed(rows):
            plan = json.loads(text)
            slices, total = plan.get("slices_used", 0), plan.get("slices_total", 0)
            found.append(Revision(number, at, by, reason, slices, total, outcome))
        return tuple(found)

    def generation_state(self, number: int) -> tuple[str, bytes]:
        """Returns the version and the state of a generation; both empty if it is unknown or no longer restorable."""
        rows = self._rows("SELECT version, state FROM generations WHERE number = ? AND state IS NOT NULL", (number,))
        return (str(rows[0][0]), bytes(rows[0][1])) if rows else ("", b"")

    def last_generation(self) -> int:
        """Returns the number of the last recorded generation; 0 if there is none."""
        return int(self.fact(_GENERATION_FACT) or 0)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.DatabaseError) -> StateError:
        return StateError(
            f"the journal cannot be read ({error})",
            where=str(self._path),
            hint=_REPAIR if _is_damage(error) else _ROOM,
        )


class Journal(JournalReader):
    """The journal of the process that writes it, which holds the deployment's lock. Any thread may call it.

    Calls that must outlive this process before anything else happens raise StateError if the file cannot be written.
    All others change the memory at once, and the file as soon as it can be written.

    Opening the journal begins an epoch. Any call that would change the file after another process has begun the next
    epoch raises SupersededError instead.

    Args:
        path: Journal file, created if missing. Only its owner can read it. A damaged file is moved aside.
        on_superseded: Callback for the end of the epoch, before SupersededError is raised; a controller ends there.

    Raises:
        StateError: The file cannot be opened or created, or has a newer version.
    """

    def __init__(self, path: Path, on_superseded: Callable[[SupersededError], None] = lambda _: None) -> None:
        self._path = path
        self._on_superseded = on_superseded
        self._epoch = ""
        self._lock = threading.RLock()
        self._failure = ""
        self._file: sqlite3.Connection | None = None
        self._fd = -1
        self._size = 0
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"the journal cannot be opened ({error})", where=str(path), hint=_ROOM) from error

    @property
    def failure(self) -> str:
        """Reason why the file lacks the latest changes: `cannot be written: ...`. Empty if it has all of them."""
        return self._failure

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
                if not self._is_intact():
                    self._renew()
                elif self._failure and self._file is not None:
                    with transaction(self._file):
                        self._check_epoch(self._file)
                        _copy(self._db, self._file)
                    self._epoch = self.fact(EPOCH_FACT)
                else:
                    return
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                return
            if self._failure:
                self._failure = ""
                self.event("journal", "the journal is complete again")

    def check_epoch(self) -> None:
        """Checks that no other process has begun an epoch. Whoever changes a server without a record of it calls this.

        Raises:
            SupersededError: One has.
        """
        # A file that is missing or damaged shows nothing.
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._file is not None and self._is_at_path():
                self._check_epoch(self._file)
            else:
                with contextlib.closing(_connect(self._path)) as file:
                    self._check_epoch(file)

    def event(self, kind: str, text: str, code: int = 0) -> None:
        """Adds a line to the event log."""
        self.add_events([(kind, text, code)])

    def add_events(self, lines: Sequence[tuple[str, str, int]]) -> None:
        """Adds lines to the event log: a change of a large cluster has thousands.

        Args:
            lines: Kind, text and exit code of each line.
        """
        at = _now()
        for begin in range(0, len(lines), _LINES_AT_ONCE):
            part = lines[begin : begin + _LINES_AT_ONCE]
            rows = ", ".join(["(?, ?, ?, ?)"] * len(part))
            values = tuple(value for line in part for value in (at, *line))
            self._change(f"INSERT INTO events (at, kind, text, code) VALUES {rows}", values)

    def begin(self, number: int, kind: str, subject: str, node: str = LOCAL_NODE) -> int:
        """Records an action before it is carried out.

        Args:
            number: Number of the action.
            kind: Name of its class.
            subject: Name of the server, graph or models that it concerns.
            node: Node that carries it out.

        Returns:
            Row to pass to `end`.
        """
        with self._lock:
            cursor = self._insist(
                "INSERT INTO actions (number, kind, subject, node, begun) VALUES (?, ?, ?, ?, ?)",
                (number, kind, subject, node, _now()),
            )
            row = int(cursor.lastrowid or 0)
            if row % _TRIM_INTERVAL == 0:
                self._trim()
        return row

    def end(self, row: int, error: str = "") -> None:
        """Records that an action has ended."""
        with self._lock:
            self._attempt("UPDATE actions SET ended = ?, error = ? WHERE id = ?", (_now(), error, row))

    def begin_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Records that a MIG instance is about to be created at a placement.

        Raises:
            StateError: The file cannot be written.
        """
        row = (*_place(gpu, placement), CreationStage.NOTED)
        self._change("INSERT INTO creations VALUES (?, ?, ?, ?, ?)", row, durable=True)

    def reach(self, gpu: GpuId, placement: Placement, stage: CreationStage) -> None:
        """Records the stage that a creation is about to reach.

        Raises:
            StateError: The file cannot be written.
        """
        statement = "UPDATE creations SET stage = ? WHERE (node, gpu, slice, start) = (?, ?, ?, ?)"
        self._change(statement, (stage, *_place(gpu, placement)), durable=True)

    def end_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Records that a creation has ended: it has failed, or its instance has been recorded."""
        self._change("DELETE FROM creations WHERE (node, gpu, slice, start) = (?, ?, ?, ?)", _place(gpu, placement))

    def keep_instance(self, instance: MigInstance) -> None:
        """Records that a MIG instance is ours.

        Raises:
            StateError: The file cannot be written.
        """
        row = (instance.uuid, *_place(instance.gpu, instance.placement))
        self._change("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?)", row, durable=True)

    def begin_destruction(self, uuid: str) -> None:
        """Records that a MIG instance of ours is about to be destroyed, so that a half-made remainder is ours, too."""
        self._change("INSERT OR REPLACE INTO destructions VALUES (?)", (uuid,))

    def forget_instance(self, uuid: str) -> None:
        """Records that a MIG instance of ours no longer exists."""
        self._change("DELETE FROM instances WHERE uuid = ?", (uuid,))
        self._change("DELETE FROM destructions WHERE uuid = ?", (uuid,))

    def keep_fact(self, name: str, value: str) -> None:
        """Records a value that concerns the whole deployment."""
        self._change("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def keep_checkpoint(self, version: str, state: bytes) -> None:
        """Records the state of the core in place of the last one.

        Args:
            version: Release and form that can read it.
            state: The state, by `controller.persistence.checkpoint`.
        """
        self._change("INSERT INTO checkpoints (version, state) VALUES (?, ?)", (version, state))
        self._change(f"DELETE FROM checkpoints WHERE id < ({_LAST_WHOLE})", ())

    def extend_checkpoint(self, state: bytes) -> None:
        """Records what has changed since the last checkpoint.

        Args:
            state: Bytes that follow those of the last checkpoint.
        """
        self._change("INSERT INTO checkpoints (version, state) VALUES ('', ?)", (state,))

    def forget_checkpoint(self) -> None:
        """Removes the state of the core: nothing is left that the next controller could go on with."""
        self._change("DELETE FROM checkpoints", ())

    def generation(
        self, number: int, by: str, reason: str, plan: Mapping[str, Any], version: str = "", state: bytes | None = None
    ) -> None:
        """Records a generation.

        Args:
            number: Number of the generation.
            by: `user` or `load`.
            reason: Cause of the change.
            plan: Plan as JSON.
            version: Release and form that can read `state`.
            state: The generation, by `controller.persistence.checkpoint`; None if a rollback cannot return to it.

        Raises:
            StateError: The file cannot be written.
        """
        with self._lock:
            row = (number, _now(), reason, json.dumps(plan), by, "", version, state)
            self._change(f"INSERT OR REPLACE INTO generations VALUES ({', '.join('?' * len(row))})", row, durable=True)
            self._change("UPDATE generations SET state = NULL WHERE number <= ?", (number - RESTORABLE,))
            self.keep_fact(_GENERATION_FACT, str(max(number, self.last_generation())))

    def conclude(self, number: int, outcome: Outcome) -> None:
        """Records the outcome of a generation."""
        self._change("UPDATE generations SET outcome = ? WHERE number = ?", (outcome, number))

    def annotate(self, number: int, text: str) -> None:
        """Adds a remark to the reason of a generation."""
        self._change("UPDATE generations SET reason = reason || ? WHERE number = ?", (f"; {text}", number))

    # --- the file --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Opens the file and reads it into memory, or creates it. A damaged one is moved aside. Begins an epoch."""
        if not self._path.exists():
            self._begin_epoch()
            self._create()
            return
        try:
            self._connect()
            assert self._file is not None
            _check_whole(self._file)
            _check_version(self._file, self._path)
            self._upgrade(self._file)
            with transaction(self._db):
                _copy(self._file, self._db)
            self._epoch = self.fact(EPOCH_FACT)
            self._begin_epoch()
        except sqlite3.DatabaseError as error:
            self._close_file()
            if not _is_damage(error):
                raise
            self._begin_epoch()
            self._renew()
        except BaseException:
            self._close_file()
            raise

    def _begin_epoch(self) -> None:
        """Ends the epoch of the process that wrote the file before. If the file cannot be written, `sync` does so."""
        epoch = next_epoch(self._epoch)
        self.keep_fact(EPOCH_FACT, epoch)
        if self._file is not None and not self._failure:
            self._epoch = epoch

    def _check_epoch(self, file: sqlite3.Connection) -> None:
        """Checks that this process still owns the journal.

        Raises:
            SupersededError: It does not.
        """
        try:
            check_epoch(file, self._epoch, str(self._path))
        except SupersededError as error:
            self._on_superseded(error)
            raise

    def _upgrade(self, file: sqlite3.Connection) -> None:
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version == SCHEMA_VERSION:
            return
        # Later versions added tables, which _SCHEMA creates, in version 4 the stages of creations, and in version 6 the
        # outcomes of generations.
        if 0 < version < 4:
            file.execute(f"ALTER TABLE creations ADD COLUMN stage INTEGER DEFAULT {CreationStage.WHOLE}")
        file.executescript(_SCHEMA)
        for table, columns in _ADDED.items():
            known = {row[1] for row in file.execute(f"PRAGMA table_info({table})")}
            for name, declared in columns.items():
                if name not in known:
                    file.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declared}")
        file.execute(
            "INSERT OR REPLACE INTO facts SELECT ?, MAX(number) FROM generations HAVING MAX(number) > 0",
            (_GENERATION_FACT,),
        )
        with transaction(file):
            # Up to version 7, a table of one row had the checkpoint.
            if file.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoint'").fetchone():
                file.execute("INSERT INTO checkpoints (version, state) SELECT version, state FROM checkpoint")
                file.execute("DROP TABLE checkpoint")
            file.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _connect(self) -> None:
        # SQLite's locks would end with any later descriptor of the file that this process closes.
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 0
        self._file = _connect(self._path)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=NORMAL")

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_intact(self) -> bool:
        """True if the open file is still at its path, has not shrunk and begins like a journal."""
        if self._file is None:
            return False
        size = os.fstat(self._fd).st_size
        shrunk, self._size = size < self._size, size
        return self._is_at_path() and not shrunk and os.pread(self._fd, len(_MAGIC), 0) == _MAGIC

    def _is_at_path(self) -> bool:
        """True if the open file is still at its path."""
        opened = os.fstat(self._fd)
        try:
            at_path = self._path.stat()
        except OSError:
            return False
        return (at_path.st_dev, at_path.st_ino) == (opened.st_dev, opened.st_ino)

    def _renew(self) -> None:
        """Moves aside whatever is at the path, and writes a new file from memory."""
        self._close_file()
        aside = _move_aside(self._path)
        lost = f"is damaged and was moved to {aside}" if aside is not None else "is missing"
        self._create()
        self.event("error", f"the journal's file {lost}; a new one was written, without the record of earlier actions")

    def _create(self) -> None:
        """Writes a new file from memory and opens it."""
        fresh = self._path.with_name(f".{self._path.name}.new")
        for end in ("", *_COMPANIONS):
            fresh.with_name(fresh.name + end).unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with contextlib.closing(_connect(fresh)) as file:
            file.executescript(_SCHEMA)
            with transaction(file):
                _copy(self._db, file)
            file.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        for end in _COMPANIONS:
            # SQLite would take those of a deleted file for the new one's.
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        fresh.replace(self._path)
        self._connect()
        self._epoch = self.fact(EPOCH_FACT)

    def _change(self, statement: str, values: tuple[Any, ...], *, durable: bool = False) -> None:
        """Changes a table in the file and in memory.

        Args:
            statement: Statement of SQL.
            values: Its values.
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
            raise StateError(f"the journal {self._failure}", where=str(self._path), hint=_ROOM)
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
        if isinstance(error, sqlite3.DatabaseError) and _is_damage(error):
            self._close_file()
        before, self._failure = self._failure, f"cannot be written: {_reason(error)}"
        if not before:
            self.event("error", f"the journal {self._failure}. What serves goes on; changes of the plan wait")

    def _trim(self) -> None:
        """Deletes old rows. `begin` triggers it, because all growth of the journal comes with actions."""
        for table, kept in KEPT.items():
            statement = f"DELETE FROM {table} WHERE rowid <= (SELECT MAX(rowid) FROM {table}) - ?"
            if table in _IN_MEMORY:
                self._change(statement, (kept,))
            else:
                self._attempt(statement, (kept,))


class CallRecord:
    """Records calls that change real GPUs as actions in the journal. A full disk does not prevent a call.

    Args:
        journal: Journal to write to.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, call: str) -> int:
        """Records a call before it is made. Returns the row to pass to `end`."""
        with contextlib.suppress(StateError):
            return self._journal.begin(0, "nvml", call)
        return 0

    def end(self, row: int, error: str) -> None:
        """Records that a call has returned, with its error if it failed."""
        with contextlib.suppress(StateError):
            self._journal.end(row, error)


def _connect(path: Path) -> sqlite3.Connection:
    """Opens an existing SQLite file."""
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _check_whole(file: sqlite3.Connection) -> None:
    """Checks that SQLite finds no damage in a file.

    Raises:
        DatabaseError: It does.
    """
    (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        damage = sqlite3.DatabaseError(found)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _check_version(file: sqlite3.Connection, path: Path) -> None:
    """Checks that this release can read a journal.

    Raises:
        StateError: The journal is of a later release.
    """
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= SCHEMA_VERSION:
        message = f"the journal has version {version}, but this release supports 1 to {SCHEMA_VERSION}"
        raise StateError(message, where=str(path), hint="use the release that wrote it to take the deployment down")


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Replaces the tables that are kept in memory by those of another database."""
    for table in _IN_MEMORY:
        rows = source.execute(f"SELECT * FROM {table}").fetchall()
        target.execute(f"DELETE FROM {table}")
        if rows:
            target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _move_aside(path: Path) -> Path | None:
    """Gives a damaged journal another name. Returns its new path; None if there is no such file."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for end in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).replace(aside.with_name(aside.name + end))
    try:
        return path.replace(aside)
    except FileNotFoundError:
        return None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """True if an error means that the file is not, or no longer, a journal."""
    # The low byte is the primary code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _reason(error: sqlite3.Error | OSError) -> str:
    """Returns the cause of an error in the words of the operating system where it has any."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return os.strerror(errno.ENOSPC) if full else str(error)


def _place(gpu: GpuId, placement: Placement) -> tuple[str, int, str, int]:
    return gpu.node, gpu.index, placement.slice, placement.start


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
