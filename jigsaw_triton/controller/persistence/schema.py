"""Tables of a journal, and the migration of journals of earlier releases."""

import sqlite3
from pathlib import Path

from jigsaw_triton.controller.persistence.sqlite_file import transaction
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import CreationStage
from jigsaw_triton.spec.words import LOCAL_NODE

SCHEMA_VERSION = 9

IN_MEMORY = (
    "events",
    "instances",
    "creations",
    "destructions",
    "facts",
    "generations",
    "generation_states",
    "checkpoints",
)
"""Tables that the controller keeps in memory, too."""

MOST_ROWS = {"events": 20_000, "actions": 20_000, "generations": 200}
"""Table -> number of its last rows to keep, plus a few between two trims. A deployment may run for years."""

GENERATION_FACT = "last generation"
"""Journal key of the number of the last generation."""

SCHEMA = """
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
  by TEXT NOT NULL DEFAULT 'user', outcome TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS generation_states (number INTEGER PRIMARY KEY, version TEXT NOT NULL, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoints (id INTEGER PRIMARY KEY, version TEXT NOT NULL, state BLOB NOT NULL);
"""

LAST_WHOLE = "SELECT MAX(id) FROM checkpoints WHERE version != ''"
"""Query of the last row with a whole state. The rows after it have what has changed since, and no version."""

_ADDED = {
    "generations": {"by": "TEXT NOT NULL DEFAULT 'user'", "outcome": "TEXT NOT NULL DEFAULT ''"},
    "actions": {"node": f"TEXT NOT NULL DEFAULT '{LOCAL_NODE}'"},
}
"""Table -> columns that journals of earlier versions lack."""


def check_version(file: sqlite3.Connection, path: Path) -> None:
    """Checks that this release can read a journal.

    Raises:
        StateError: The journal is of a later release.
    """
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= SCHEMA_VERSION:
        message = f"the journal has version {version}, but this release supports 1 to {SCHEMA_VERSION}"
        raise StateError(message, where=str(path), hint="use the release that wrote it to take the deployment down")


def is_earlier(file: sqlite3.Connection) -> bool:
    """Returns True if an earlier release wrote a journal, with another version."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    return bool(0 < version < SCHEMA_VERSION)


def upgraded_copy(file: sqlite3.Connection) -> sqlite3.Connection:
    """Returns a copy in memory of a journal of an earlier release, brought to the current version."""
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        file.backup(made)
        upgrade(made)
    except BaseException:
        made.close()
        raise
    return made


def upgrade(file: sqlite3.Connection) -> None:
    """Brings a journal of an earlier release to the current version."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    # SCHEMA creates the tables that later versions added. Version 4 added the column of the stages of creations, and
    # version 6 that of the outcomes of generations.
    if 0 < version < 4:
        file.execute(f"ALTER TABLE creations ADD COLUMN stage INTEGER DEFAULT {CreationStage.WHOLE}")
    file.executescript(SCHEMA)
    for table, columns in _ADDED.items():
        known = _columns(file, table)
        for name, declared in columns.items():
            if name not in known:
                file.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declared}")
    file.execute(
        "INSERT OR REPLACE INTO facts SELECT ?, MAX(number) FROM generations HAVING MAX(number) > 0",
        (GENERATION_FACT,),
    )
    with transaction(file):
        # Up to version 7, a table of one row had the checkpoint.
        if file.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoint'").fetchone():
            file.execute("INSERT INTO checkpoints (version, state) SELECT version, state FROM checkpoint")
            file.execute("DROP TABLE checkpoint")
        # Up to version 8, the states of generations were columns, which each change of an outcome wrote again.
        if "state" in _columns(file, "generations"):
            file.execute(
                "INSERT INTO generation_states SELECT number, version, state FROM generations WHERE state IS NOT NULL"
            )
            file.execute("ALTER TABLE generations DROP COLUMN state")
            file.execute("ALTER TABLE generations DROP COLUMN version")
        file.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _columns(file: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in file.execute(f"PRAGMA table_info({table})")}


def copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Replaces the tables that are kept in memory by those of another database."""
    for table in IN_MEMORY:
        rows = source.execute(f"SELECT * FROM {table}").fetchall()
        target.execute(f"DELETE FROM {table}")
        if rows:
            target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
