"""Bytes in which jobs of the planning process and their outcomes travel."""

import io
import pickle
from collections.abc import Callable
from typing import Any

from jigsaw_triton.profiles.table import ProfileTable

MOST_TABLES = 128
"""Number of profile tables that are kept. A convention; a graph has one."""


class Pickles:
    """One side's bytes of values and values of bytes.

    A profile table that has travelled before, in either direction, is not made anew: it takes long, and the planner
    knows a table by its identity.
    """

    def __init__(self) -> None:
        self._tables: dict[bytes, ProfileTable] = {}
        """State of a profile table -> the table; the latest come last."""

    def packed(self, value: object) -> bytes:
        """Returns the bytes of a value."""
        file = io.BytesIO()
        pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = {ProfileTable: self._reduced}
        pickler.dump(value)
        return file.getvalue()

    def unpacked(self, data: bytes) -> Any:
        """Returns the value of these bytes. Equal profile tables are one object."""
        return _Unpickler(io.BytesIO(data), self._table).load()

    def _reduced(self, table: ProfileTable) -> tuple[Callable[[bytes], ProfileTable], tuple[bytes]]:
        state = table.__getstate__()
        self._keep(state, table)
        return known_table, (state,)

    def _table(self, state: bytes) -> ProfileTable:
        table = self._tables.get(state)
        if table is None:
            table = ProfileTable(())
            table.__setstate__(state)
        self._keep(state, table)
        return table

    def _keep(self, state: bytes, table: ProfileTable) -> None:
        self._tables.pop(state, None)
        self._tables[state] = table
        while len(self._tables) > MOST_TABLES:
            del self._tables[next(iter(self._tables))]


def known_table(state: bytes) -> ProfileTable:
    """Stands in the bytes for the reader's own function that returns the table of this state.

    Raises:
        NotImplementedError: Always. `_Unpickler` puts the reader's function in its place, so nothing calls this one.
    """
    raise NotImplementedError


class _Unpickler(pickle.Unpickler):
    """Reads values with the tables of one side.

    Args:
        file: Bytes of the value.
        table: Function that returns the table of a state.
    """

    def __init__(self, file: io.BytesIO, table: Callable[[bytes], ProfileTable]) -> None:
        super().__init__(file)
        self._table = table

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Returns the class or function of this name."""
        found = super().find_class(module_name, global_name)
        return self._table if found is known_table else found
