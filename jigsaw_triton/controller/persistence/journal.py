"""The controller's journal, an SQLite file: events, actions, the core's state and the deployment's MIG instances."""

import json
from collections.abc import Mapping
from typing import Any

from jigsaw_triton.controller.persistence.journal_file import JournalFile, now
from jigsaw_triton.controller.persistence.records import Outcome
from jigsaw_triton.controller.persistence.schema import GENERATION_FACT, IN_MEMORY, LAST_WHOLE, MOST_ROWS
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement
from jigsaw_triton.spec.words import LOCAL_NODE

RESTORABLE = 20
"""Number of generations, the latest, to which a rollback can return."""

_TRIM_INTERVAL = 64


class Journal(JournalFile):
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
                (number, kind, subject, node, now()),
            )
            row = int(cursor.lastrowid or 0)
            if row % _TRIM_INTERVAL == 0:
                self._trim()
        return row

    def end(self, row: int, error: str = "") -> None:
        """Records that an action has ended."""
        with self._lock:
            self._attempt("UPDATE actions SET ended = ?, error = ? WHERE id = ?", (now(), error, row))

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

    def keep_checkpoint(self, version: str, state: bytes) -> None:
        """Records the state of the core in place of the last one.

        Args:
            version: Release and form that can read it.
            state: The state, by `controller.persistence.checkpoint`.
        """
        self._change("INSERT INTO checkpoints (version, state) VALUES (?, ?)", (version, state))
        self._change(f"DELETE FROM checkpoints WHERE id < ({LAST_WHOLE})", ())

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
            row = (number, now(), reason, json.dumps(plan), by, "")
            self._change(f"INSERT OR REPLACE INTO generations VALUES ({', '.join('?' * len(row))})", row, durable=True)
            self._change("DELETE FROM generation_states WHERE number <= ?", (number - RESTORABLE,))
            if state is not None:
                kept = (number, version, state)
                self._change("INSERT OR REPLACE INTO generation_states VALUES (?, ?, ?)", kept, durable=True)
            self.keep_fact(GENERATION_FACT, str(max(number, self.last_generation())))

    def conclude(self, number: int, outcome: Outcome) -> None:
        """Records the outcome of a generation."""
        self._change("UPDATE generations SET outcome = ? WHERE number = ?", (outcome, number))

    def annotate(self, number: int, text: str) -> None:
        """Adds a remark to the reason of a generation."""
        self._change("UPDATE generations SET reason = reason || ? WHERE number = ?", (f"; {text}", number))

    def _trim(self) -> None:
        """Deletes old rows. `begin` triggers it, because all growth of the journal comes with actions."""
        for table, rows in MOST_ROWS.items():
            statement = f"DELETE FROM {table} WHERE rowid <= (SELECT MAX(rowid) FROM {table}) - ?"
            if table in IN_MEMORY:
                self._change(statement, (rows,))
            else:
                self._attempt(statement, (rows,))


def _place(gpu: GpuId, placement: Placement) -> tuple[str, int, str, int]:
    return gpu.node, gpu.index, placement.slice, placement.start
