"""The controller's memory on disk: events, actions before and after, and what is ours on the machine. SQLite."""

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
"""Table -> how many of its last rows are kept, and a few more: a deployment that follows its load runs for years."""

_TRIM_INTERVAL = 64

_ROOM = "it needs a folder that this user can write to, with room left"

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
        id: Counts up.
        at: UTC, ISO 8601.
        kind: A word.
        text: A sentence.
        code: Exit code that goes with an error which ended a change; else 0.
    """

    id: int
    at: str
    kind: str
    text: str
    code: int


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A tritonserver that was started.

    Attributes:
        name: A worker's, or `gateway`.
        pid: Process and process group.
        started: Start time of the process in the kernel's ticks: with the pid it names one process for good.
        shm_prefix: How the names of its regions in /dev/shm begin.
    """

    name: str
    pid: int
    started: int
    shm_prefix: str


class Journal:
    """An open journal. Every call is durable when it returns; any thread may make it.

    Calls that add to it raise StateError if its disk is full or cannot be written. Calls that remove from it do not:
    `end_orphans` checks whether each record still exists.

    Args:
        path: Made if it does not exist, readable by its owner alone.

    Raises:
        StateError: The file is not a journal, or of another version.
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
                raise StateError(f"journal version {version}", where=str(path), hint="remove the file and deploy again")
            if version < SCHEMA_VERSION:
                # What came with a version are tables, and the stages of creations, which were not known before.
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
        """The last `limit` events with an id greater than `after`, oldest first."""
        rows = self._db.execute(
            "SELECT id, at, kind, text, code FROM events WHERE id > ? ORDER BY id DESC LIMIT ?", (after, limit)
        ).fetchall()
        return tuple(JournalEvent(*row) for row in reversed(rows))

    def begin(self, number: int, kind: str, subject: str) -> int:
        """Notes an action before it is carried out; returns the row for `end`."""
        cursor = self._write(
            "INSERT INTO actions (number, kind, subject, begun) VALUES (?, ?, ?, ?)", (number, kind, subject, _now())
        )
        row = int(cursor.lastrowid or 0)
        if row % _TRIM_INTERVAL == 0:
            self._trim()
        return row

    def end(self, row: int, error: str = "") -> None:
        """Notes that an action has ended."""
        self._write("UPDATE actions SET ended = ?, error = ? WHERE id = ?", (_now(), error, row))

    def begin_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Notes that a MIG instance is about to be created there."""
        self._write("INSERT INTO creations VALUES (?, ?, ?, ?, ?)", (*_place(gpu, placement), CreationStage.NOTED))

    def reach(self, gpu: GpuId, placement: Placement, stage: CreationStage) -> None:
        """Notes how far a creation is about to get."""
        self._write(
            "UPDATE creations SET stage = ? WHERE (node, gpu, slice, start) = (?, ?, ?, ?)",
            (stage, *_place(gpu, placement)),
        )

    def end_creation(self, gpu: GpuId, placement: Placement) -> None:
        """Notes that the creation has come to an end: it failed, or the instance is kept."""
        self._attempt("DELETE FROM creations WHERE (node, gpu, slice, start) = (?, ?, ?, ?)", *_place(gpu, placement))

    def creations(self) -> Mapping[tuple[GpuId, Placement], CreationStage]:
        """Creations whose end was not noted, and how far they may have got."""
        rows = self._db.execute("SELECT node, gpu, slice, start, stage FROM creations").fetchall()
        return {(GpuId(node, gpu), Placement(start, kind)): CreationStage(s) for node, gpu, kind, start, s in rows}

    def keep_instance(self, instance: MigInstance) -> None:
        """Notes that a MIG instance is ours."""
        place = _place(instance.gpu, instance.placement)
        self._write("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?)", (instance.uuid, *place))

    def begin_destruction(self, uuid: str) -> None:
        """Notes that a MIG instance of ours is about to be destroyed: what is left half made there is ours, too."""
        self._attempt("INSERT OR REPLACE INTO destructions VALUES (?)", uuid)

    def destructions(self) -> tuple[str, ...]:
        """UUIDs of the instances whose destruction has begun and that were not noted as gone."""
        return tuple(uuid for (uuid,) in self._db.execute("SELECT uuid FROM destructions").fetchall())

    def forget_instance(self, uuid: str) -> None:
        """Notes that a MIG instance of ours is gone."""
        self._attempt("DELETE FROM instances WHERE uuid = ?", uuid)
        self._attempt("DELETE FROM destructions WHERE uuid = ?", uuid)

    def instances(self) -> tuple[MigInstance, ...]:
        """MIG instances that are ours and were not noted as gone."""
        rows = self._db.execute("SELECT uuid, node, gpu, slice, start FROM instances ORDER BY uuid").fetchall()
        return tuple(
            MigInstance(GpuId(node, gpu), Placement(start, kind), uuid) for uuid, node, gpu, kind, start in rows
        )

    def keep_server(self, record: ServerRecord) -> None:
        """Notes that a server of ours runs."""
        row = (record.name, record.pid, record.started, record.shm_prefix)
        self._write("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?)", row)

    def forget_server(self, name: str) -> None:
        """Notes that a server of ours is gone."""
        self._attempt("DELETE FROM servers WHERE name = ?", name)

    def servers(self) -> tuple[ServerRecord, ...]:
        """Servers that are ours and were not noted as gone."""
        rows = self._db.execute("SELECT name, pid, started, shm_prefix FROM servers ORDER BY name").fetchall()
        return tuple(ServerRecord(*row) for row in rows)

    def keep_daemon(self, pipes: str) -> None:
        """Notes that an MPS daemon of ours is about to be started, by its pipe directory."""
        self._write("INSERT OR REPLACE INTO daemons VALUES (?)", (pipes,))

    def forget_daemon(self, pipes: str) -> None:
        """Notes that an MPS daemon of ours is gone."""
        self._attempt("DELETE FROM daemons WHERE pipes = ?", pipes)

    def daemons(self) -> tuple[str, ...]:
        """Pipe directories of the MPS daemons that are ours and were not noted as gone."""
        return tuple(pipes for (pipes,) in self._db.execute("SELECT pipes FROM daemons ORDER BY pipes").fetchall())

    def keep_fact(self, name: str, value: str) -> None:
        """Notes something about the deployment as a whole."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str:
        """What was noted last; empty where nothing was."""
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
        """Notes a plan."""
        self._write(
            "INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?)", (number, _now(), reason, json.dumps(plan))
        )

    def last_generation(self) -> int:
        """The highest number noted; 0 where there is none."""
        (number,) = self._db.execute("SELECT COALESCE(MAX(number), 0) FROM generations").fetchone()
        return int(number)

    def _write(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            # The number of a row is the connection's last: no other thread may come in between.
            with self._lock:
                return self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise StateError(f"the journal cannot be written ({error})", where=str(self._path), hint=_ROOM) from error

    def _trim(self) -> None:
        """Forgets what is too old. Every change of the system, and so all growth, comes with actions."""
        for table, kept in KEPT.items():
            self._attempt(f"DELETE FROM {table} WHERE rowid <= (SELECT MAX(rowid) FROM {table}) - ?", kept)

    def _attempt(self, statement: str, *key: str | int) -> None:
        """Writes what must not keep anything from being taken away."""
        with contextlib.suppress(StateError):
            self._write(statement, key)


class CallRecord:
    """Calls that change real GPUs, as actions of the journal. A full disk keeps none from being made.

    Args:
        journal: Gets them.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, call: str) -> int:
        """Notes a call before it is made; returns what `end` takes."""
        with contextlib.suppress(StateError):
            return self._journal.begin(0, "nvml", call)
        return 0

    def end(self, row: int, error: str) -> None:
        """Notes that it returned, and what it failed with."""
        with contextlib.suppress(StateError):
            self._journal.end(row, error)


def _place(gpu: GpuId, placement: Placement) -> tuple[str, int, str, int]:
    return gpu.node, gpu.index, placement.slice, placement.start


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
