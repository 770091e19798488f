"""Copies of a controller's state on another machine, from which a controller there takes over."""

import base64
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.checkpoint import VERSION, is_readable, pickled, unpickled
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import ROOM, JournalReader
from jigsaw_triton.controller.persistence.sqlite_file import COMPANIONS, WAL
from jigsaw_triton.errors import StateError


def copied(journal: JournalReader) -> bytes:
    """Returns what the next controller needs of a journal: the last checkpoint and the facts."""
    version, state = journal.checkpoint()
    copy = {"version": version, "state": base64.b64encode(state).decode(), "facts": dict(journal.facts())}
    return json.dumps(copy).encode()


def restore(copy: bytes, path: Path, epoch: str, change: Callable[[State], State]) -> None:
    """Makes a journal of a copy, with which a controller goes on.

    Args:
        copy: Copy by `copied`.
        path: Journal, which does not exist.
        epoch: Highest epoch that is known; the next controller begins a later one.
        change: Function that returns the state for this machine.

    Raises:
        StateError: The copy cannot be read, or the journal cannot be written.
    """
    data = json.loads(copy)
    version, state = data["version"], base64.b64decode(data["state"])
    if not state or not is_readable(version):
        release = version.partition("/")[0] or "none"
        raise StateError(f"this release cannot read the copied state (release {release})", hint=f"install {release}")
    found = unpickled(state)
    if not isinstance(found, State):
        raise StateError("is not a state", where="the copied checkpoint")
    changed = change(found)
    facts = dict(data["facts"])
    last = max(epoch, facts.pop(EPOCH_FACT, ""), key=number_of)
    # The journal is written under another name, so that an interruption leaves no incomplete one at `path`.
    fresh = path.with_name(f".{path.name}.restored")
    fresh.unlink(missing_ok=True)
    try:
        with closing(Journal(fresh)) as journal:
            journal.keep_checkpoint(VERSION, pickled(changed))
            for name, value in facts.items():
                journal.keep_fact(name, value)
            # The epoch is written last, because that ends the right of this writer to change the journal.
            journal.keep_fact(EPOCH_FACT, last)
            failure = journal.failure
        if failure or fresh.with_name(fresh.name + WAL).exists():
            raise StateError(f"the journal {failure or 'cannot be written'}", where=str(path), hint=ROOM)
        fresh.rename(path)
    finally:
        for end in ("", *COMPANIONS):
            fresh.with_name(fresh.name + end).unlink(missing_ok=True)
