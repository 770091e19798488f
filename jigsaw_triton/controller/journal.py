"""The controller's journal, an SQLite file: events, actions, and the deployment's servers and MIG instances."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement

SCHEMA_VERSION = 5

KEPT = {"events": 20_000, "actions": 20_000, "generations": 1_000}
"""Table -> number of its last rows to keep, plus a few between two trims. A deployment may run for years."""

_TRIM_INTERVAL = 64

_ROOM = "use a folder that this user can write to, with free disk space"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
  code INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS actions (
  id INTEGER PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
  begun TEXT NOT NULL, ended TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS instances (
  uuid TEXT PRIMARY KEY, node TEXT NOT NULL, gpu INTEGER NOT NULL, slice TEXT NOT NULL, start INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS creations (
  node TEXT NOT NULL, gpu INTEGER NOT NULL, slice TEXT NOT NULL, start INTEGER NOT NULL, stage INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS destructions (uuid TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS servers (
  name TEXT PRIMARY KEY, pid INTEGER NOT NULL, started INTEGER NOT NULL, shm_prefix TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS daemons (pipes TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS generations (
  number INTEGER PRIMARY KEY, at TEXT NOT NULL, reason TEXT NOT NULL, plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (
  id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT NOT NULL, state BLOB NOT NULL);
"""


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


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A tritonserver or edge process that was started.

    Attributes:
        name: Name of the worker, `gateway` or `edge`.
        pid: Id of the process and of its process group.
        started: Start time of the process in kernel ticks since boot. With the pid it identifies the process uniquely.
        shm_prefix: Prefix of the names of its shared-memory regions in /dev/shm.
    """

    name: str
    pid: int
    started: int
    shm_prefix: str


class Journal:
    """An open journal. Each call is durable when it returns. Any thread may call it.

    Calls that add records raise StateError if the disk is full or not writable. Calls that remove records do not:
    `end_orphans` checks whether each recorded object still exists.

    Args:
        path: Journal file, created if missing. Only its owner can read it.

    Raises:
        StateError: The file cannot be opened, is not a journal, or has a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= SCHEMA_VERSION:
                message = f"the journal has version {version}, but this release supports 1 to {SCHEMA_VERSION}"
                raise StateError(message, where=str(path), hint="remove the file and deploy again")
            if version < SCHEMA_VERSION:
                # Later versions added tables, which _SCHEMA creates, and in version 4 the stages of creations.
                if 0 < version < 4:
                    self._db.execute(f"ALTER TABLE creations ADD COLUMN stage INTEGER DEFAULT {CreationStage.WHOLE}")
                self._db.executescript(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.OperationalError as error:
            raise StateError(f"the journal cannot be opened ({error})", where=str(path), hint=_ROOM) from error
        except sqlite3.DatabaseError as error:
            raise StateError(
                f"the journal cannot be read ({error})", where=str(path), hint="remove the file and deploy again"
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def event(self, kind: str, text: str, code: int = 0) -> None:
        """Adds a line to the event log."""
        self._write("INSERT INTO events (at, kind, text, code) VALUES (?, ?, ?, ?)", (_now(), kind, text, code))

    def events(self, after: int = 0, limit: int = 1000) -> tuple[JournalEvent, ...]:
        """Returns the last `limit` events with an id greater than `after`, oldest first."""
        rows = self._db.execute(
            "SELECT id, at, kind, text, code FROM events WHERE id > ? ORDER BY id DESC LIMIT ?", (after, limit)
        ).fetchall()
        return tuple(JournalEvent(*row) for row in reversed(rows))

    def begin(self, number: int, kind: str, subject: str) -> int:
        """Records an action before it is carried out. Returns the row to pass to `end`."""
        cursor = self._write(
            "INSERT INTO actions (number, kind, subject, begun) VALUES (?, ?, ?, ?)", (number, kind, subject, _now())
        )
        row = int(cursor.lastrowid or 0)
        if row % _TRIM_INTERVAL == 0:
            self._trim()
        return row

    def end(self, row: int, error: str = "") -> None:
        """Records that an action has ended."""
        self._write("UPDATE actions SET ended = ?, error = ? WHERE id = ?", (_now(), error, row))

    def begin_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Records that a MIG instance is about to be created at a placement."""
        self._write("INSERT INTO creations VALUES (?, ?, ?, ?, ?)", (*_place(gpu, placement), CreationStage.NOTED))

    def reach(self, gpu: GpuId, placement: Placement, stage: CreationStage) -> None:
        """Records the stage that a creation is about to reach."""
        self._write(
            "UPDATE creations SET stage = ? WHERE (node, gpu, slice, start) = (?, ?, ?, ?)",
            (stage, *_place(gpu, placement)),
        )

    def end_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Records that a creation has ended: it has failed, or its instance has been recorded."""
        self._attempt("DELETE FROM creations WHERE (node, gpu, slice, start) = (?, ?, ?, ?)", *_place(gpu, placement))

    def creations(self) -> Mapping[tuple[GpuId, Placement], CreationStage]:
        """Returns unfinished creations and the stages that they may have reached."""
        rows = self._db.execute("SELECT node, gpu, slice, start, stage FROM creations").fetchall()
        return {(GpuId(node, gpu), Placement(start, kind)): CreationStage(s) for node, gpu, kind, start, s in rows}

    def keep_instance(self, instance: MigInstance) -> None:
        """Records that a MIG instance is ours."""
        place = _place(instance.gpu, instance.placement)
        self._write("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?)", (instance.uuid, *place))

    def begin_destruction(self, uuid: str) -> None:
        """Records that a MIG instance of ours is about to be destroyed, so that a half-made remainder is ours, too."""
        self._attempt("INSERT OR REPLACE INTO destructions VALUES (?)", uuid)

    def destructions(self) -> tuple[str, ...]:
        """Returns the UUIDs of instances whose destruction has begun but has not been recorded as finished."""
        return tuple(uuid for (uuid,) in self._db.execute("SELECT uuid FROM destructions").fetchall())

    def forget_instance(self, uuid: str) -> None:
        """Records that a MIG instance of ours no longer exists."""
        self._attempt("DELETE FROM instances WHERE uuid = ?", uuid)
        self._attempt("DELETE FROM destructions WHERE uuid = ?", uuid)

    def instances(self) -> tuple[MigInstance, ...]:
        """Returns the MIG instances that are recorded as ours."""
        rows = self._db.execute("SELECT uuid, node, gpu, slice, start FROM instances ORDER BY uuid").fetchall()
        return tuple(
            MigInstance(GpuId(node, gpu), Placement(start, kind), uuid) for uuid, node, gpu, kind, start in rows
        )

    def keep_server(self, record: ServerRecord) -> None:
        """Records that a server of ours is running."""
        row = (record.name, record.pid, record.started, record.shm_prefix)
        self._write("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?)", row)

    def forget_server(self, name: str) -> None:
        """Records that a server of ours has ended."""
        self._attempt("DELETE FROM servers WHERE name = ?", name)

    def servers(self) -> tuple[ServerRecord, ...]:
        """Returns the servers that are recorded as running."""
        rows = self._db.execute("SELECT name, pid, started, shm_prefix FROM servers ORDER BY name").fetchall()
        return tuple(ServerRecord(*row) for row in rows)

    def keep_daemon(self, pipes: str) -> None:
        """Records that an MPS daemon with this pipe directory is about to be started."""
        self._write("INSERT OR REPLACE INTO daemons VALUES (?)", (pipes,))

    def forget_daemon(self, pipes: str) -> None:
        """Records that an MPS daemon of ours has ended."""
        self._attempt("DELETE FROM daemons WHERE pipes = ?", pipes)

    def daemons(self) -> tuple[str, ...]:
        """Returns the pipe directories of the MPS daemons that are recorded as running."""
        return tuple(pipes for (pipes,) in self._db.execute("SELECT pipes FROM daemons ORDER BY pipes").fetchall())

    def keep_fact(self, name: str, value: str) -> None:
        """Records a value that concerns the whole deployment."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str:
        """Returns the value recorded last under a name; empty if there is none."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def keep_checkpoint(self, version: str, state: bytes) -> None:
        """Records the state of the core in place of the last one.

        Args:
            version: Release and form that can read it.
            state: The state, by `controller.checkpoint`.
        """
        self._write("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (version, state))

    def forget_checkpoint(self) -> None:
        """Removes the state of the core: nothing is left that the next controller could go on with."""
        self._attempt("DELETE FROM checkpoint")

    def checkpoint(self) -> tuple[str, bytes]:
        """Version and state of the last checkpoint; both empty where there is none."""
        row = self._db.execute("SELECT version, state FROM checkpoint").fetchone()
        return ("", b"") if row is None else (str(row[0]), bytes(row[1]))

    def generation(self, number: int, reason: str, plan: Mapping[str, Any]) -> None:
        """Records the plan of a generation."""
        self._write(
            "INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?)", (number, _now(), reason, json.dumps(plan))
        )

    def last_generation(self) -> int:
        """Returns the highest recorded number of a generation; 0 if there is none."""
        (number,) = self._db.execute("SELECT COALESCE(MAX(number), 0) FROM generations").fetchone()
        return int(number)

    def _write(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            # `lastrowid` comes from the connection, so no other thread may write before the cursor is created.
            with self._lock:
                return self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise StateError(f"the journal cannot be written ({error})", where=str(self._path), hint=_ROOM) from error

    def _trim(self) -> None:
        """Deletes old rows. `begin` triggers it, because all growth of the journal comes with actions."""
        for table, kept in KEPT.items():
            self._attempt(f"DELETE FROM {table} WHERE rowid <= (SELECT MAX(rowid) FROM {table}) - ?", kept)

    def _attempt(self, statement: str, *key: str | int) -> None:
        """Executes a statement and ignores a failure, which must not prevent a teardown."""
        with contextlib.suppress(StateError):
            self._write(statement, key)


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


def _place(gpu: GpuId, placement: Placement) -> tuple[str, int, str, int]:
    return gpu.node, gpu.index, placement.slice, placement.start


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
