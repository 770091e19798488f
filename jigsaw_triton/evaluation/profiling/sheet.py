"""The profiles.csv for measurements, which is always complete, so that an interrupted run can be continued."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.spec.files import replace_text


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

    def require_writable(self) -> None:
        """Checks that the file can be written, before hours are spent on its rows.

        Raises:
            InputError: The file cannot be written.
        """
        with _writing(self.path):
            folder = self.path.resolve().parent
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder, prefix=".part-").cleanup()

    def add(self, *added: ProfileRow) -> None:
        """Adds or replaces the rows of configurations, and atomically replaces the file.

        Raises:
            InputError: The file cannot be written.
        """
        rows = {row.key: row for row in (*self._table.rows(), *added)}
        self.replace(rows.values())

    def replace(self, rows: Iterable[ProfileRow]) -> None:
        """Atomically replaces all rows of the file.

        Raises:
            InputError: The file cannot be written.
        """
        self._table = ProfileTable(rows)
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self.path, write_profiles(self._table.rows()))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the file cannot be written ({error.strerror})",
            where=str(path),
            hint="make room there, or choose another file with -O",
        ) from error
