"""The profiles.csv for measurements, which is always complete, so that an interrupted run can be continued."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable


class Sheet:
    """A profiles.csv to which rows are added.

    Args:
        path: Path of the file. Existing rows are kept.
        fresh: True if the rows of an existing file are not read, because they will be replaced.

    Raises:
        SpecError: The file exists and has errors.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self._table = read_profiles(path) if path.exists() and not fresh else ProfileTable(())

    @property
    def table(self) -> ProfileTable:
        """Rows of the file."""
        return self._table

    def add(self, *added: ProfileRow) -> None:
        """Adds or replaces the rows of configurations, and atomically replaces the file.

        Raises:
            InputError: The file cannot be written.
        """
        rows = {row.key: row for row in (*self._table.rows(), *added)}
        self.replace(rows.values())

    def replace(self, rows: Iterable[ProfileRow]) -> None:
        """Atomically replaces all rows of the file, or of the file that a link leads to.

        Raises:
            InputError: The file cannot be written.
        """
        self._table = ProfileTable(rows)
        try:
            target = self.path.resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
                fresh = Path(folder, target.name)
                fresh.write_text(write_profiles(self._table.rows()), encoding="utf-8")
                fresh.replace(target)
        except OSError as error:
            raise InputError(
                f"the file cannot be written ({error.strerror})", where=str(self.path), hint="choose another with -O"
            ) from error
