"""A journal as another process sees it, which only reads it."""

import json
import sqlite3
from collections.abc import Collection, Mapping
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

    def events(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        before: int | None = None,
        kinds: Collection[str] = (),
        text: str = "",
    ) -> tuple[JournalEvent, ...]:
        """Returns the last `limit` events that match, oldest first.

        Args:
            after: Number that the events' numbers exceed.
            limit: Number of events to return.
            before: Number that the events' numbers are less than; None for no limit.
            kinds: Kinds of the events; empty for all.
            text: Text that the events contain, whatever the case of its letters; empty for all.
        """
        conditions: dict[str, tuple[Any, ...]] = {"id > ?": (after,)}
        if before is not None:
            conditions["id < ?"] = (before,)
        if kinds:
            conditions[f"kind IN ({', '.join('?' * len(kinds))})"] = tuple(kinds)
        if text:
            conditions["instr(lower(text), lower(?)) > 0"] = (text,)
        query = f"SELECT id, at, kind, text, code FROM events WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
        rows = self._rows(query, (*(value for values in conditions.values() for value in values), limit))
        return tuple(JournalEvent(*row) for row in reversed(rows))

    def event_kinds(self) -> tuple[str, ...]:
        """Returns the kinds of events that there are, sorted."""
        return tuple(kind for (kind,) in self._rows("SELECT DISTINCT kind FROM events ORDER BY kind"))

    def plan(self, number: int) -> dict[str, Any] | None:
        """Returns the plan of a generation as in plan.json; None if the generation is unknown."""
        rows = self._rows("SELECT plan FROM generations WHERE number = ?", (number,))
        return dict(json.loads(rows[0][0])) if rows else None

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
        """Returns the version and the state of the last checkpoint; both empty where there is none."""
        rows = self._rows(f"SELECT version, state FROM checkpoints WHERE id >= ({LAST_WHOLE}) ORDER BY id")
        return (str(rows[0][0]), b"".join(state for _, state in rows)) if rows else ("", b"")

    def generations(self, limit: int = MOST_ROWS["generations"]) -> tuple[Revision, ...]:
        """Returns the latest generations, oldest first.

        Args:
            limit: Number of generations to return.
        """
        # Plans of a thousand GPUs are large, and SQLite reads them without holding up other threads.
        slices = ", ".join(f"ifnull(json_extract(plan, '$.{name}'), 0)" for name in ("slices_used", "slices_total"))
        rows = self._rows(
            f"SELECT number, at, by, reason, {slices}, outcome FROM generations ORDER BY number DESC LIMIT ?", (limit,)
        )
        return tuple(Revision(*row) for row in reversed(rows))

    def served_last(self) -> int:
        """Returns the number of the generation that serves, or served last; 0 if there is none."""
        rows = self._rows("SELECT max(number) FROM generations WHERE outcome IN ('serves', 'stopped')")
        return int(rows[0][0] or 0)

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
