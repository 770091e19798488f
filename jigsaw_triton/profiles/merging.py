"""Merges rows of profiles from another source into a table."""

import dataclasses
from collections.abc import Iterable

from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable


@dataclasses.dataclass(frozen=True)
class Merged:
    """A table and what has become of the rows that were merged into it.

    Attributes:
        table: The table.
        added: New configurations.
        replaced: Configurations whose row was replaced.
        kept: Configurations whose measured row was kept, although another row was given.
    """

    table: ProfileTable
    added: tuple[ProfileKey, ...]
    replaced: tuple[ProfileKey, ...]
    kept: tuple[ProfileKey, ...]


def merged(table: ProfileTable, rows: Iterable[ProfileRow], *, replace: bool = False) -> Merged:
    """Merges rows into a table. Rows that equal those of the table count as neither replaced nor kept.

    A row without memory has that of the row that it replaces.

    Args:
        table: Known rows.
        rows: Rows to merge, of distinct configurations.
        replace: True if measured rows replace measured ones too; otherwise only fitted and assumed ones are replaced.
    """
    known = {row.key: row for row in table.rows()}
    added, replaced, kept = [], [], []
    for row in rows:
        before = known.get(row.key)
        if before is not None and row.memory_mib == 0:
            row = dataclasses.replace(row, memory_mib=before.memory_mib)
        if before is not None and before.source == "measured" and not (replace and row.source == "measured"):
            if before != row:
                kept.append(row.key)
            continue
        if before is None:
            added.append(row.key)
        elif before != row:
            replaced.append(row.key)
        known[row.key] = row
    return Merged(ProfileTable(known.values()), tuple(added), tuple(replaced), tuple(kept))
