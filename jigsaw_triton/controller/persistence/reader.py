"""A journal as another process sees it, which only reads it."""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jigsaw_triton.controller.persistence.records import JournalEvent, Revision
from jigsaw_triton.controller.persistence.schema import (
    GENERATION_FACT,
    LAST_WHOLE,
    MOST_ROWS,
    check_version,
    is_earlier,
    upgraded_copy,
)
from jigsaw_triton.controller.persistence.sqlite_file import connect, is_damage
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement

ROOM = "use a folder that this user can write to, with free disk space"
REPAIR = "`jigsaw-triton deploy` and `jigsaw-triton down` move a damaged journal aside"


class JournalReader:
    """A journal that another process may be writing. Each call returns the current rows. Any thread may call it.

    A journal of an earlier release stays as it is, and calls return the rows that it had when it was opened.

    Args:
        path: Journal file.

    Raises:
        StateError: The file cannot be opened, is not a journal, or has a newer version. Later calls raise it, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = _opened(path)
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

    def facts(self) -> Mapping[str, str]:
        """Returns the values recorded last, by name."""
        return {str(name): str(value) for name, value in self._rows("SELECT name, value FROM facts")}

    def checkpoint(self) -> tuple[str, bytes]:
        """Version and state of the last checkpoint; both empty where there is none."""
        rows = self._rows(f"SELECT version, state FROM checkpoints WHERE id >= ({LAST_WHOLE}) ORDER BY id")
        return (str(rows[0][0]), b"".join(state for _, state in rows)) if rows else ("", b"")

    def generations(self, limit: int = MOST_ROWS["generations"]) -> tuple[Revision, ...]:
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
        rows = self._rows("SELECT version, state FROM generation_states WHERE number = ?", (number,))
        return (str(rows[0][0]), bytes(rows[0][1])) if rows else ("", b"")

    def last_generation(self) -> int:
        """Returns the number of the last recorded generation; 0 if there is none."""
        return int(self.fact(GENERATION_FACT) or 0)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.DatabaseError) -> StateError:
        return StateError(
            f"the journal cannot be read ({error})",
            where=str(self._path),
            hint=REPAIR if is_damage(error) else ROOM,
        )


def _opened(path: Path) -> sqlite3.Connection:
    """Opens a journal. One of an earlier release is read from a copy, since that release may have to go on with it."""
    file = connect(path)
    try:
        check_version(file, path)
        if not is_earlier(file):
            return file
        made = upgraded_copy(file)
    except BaseException:
        file.close()
        raise
    file.close()
    return made
