"""The profiles.csv for measurements, which is always complete, so that an interrupted run can be continued."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
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
        self._added: dict[ProfileKey, ProfileRow] = {}

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

    def refresh(self) -> None:
        """Takes the rows that other commands have written to the file since; those that were added here prevail.

        A file that cannot be read is ignored: the rows are in the table.
        """
        if self.path.exists():
            with suppress(SpecError):
                known = {row.key: row for row in read_profiles(self.path).rows()}
                self._table = ProfileTable((known | self._added).values())

    def add(self, *added: ProfileRow) -> None:
        """Adds or replaces the rows of configurations, and atomically replaces the file.

        Raises:
            InputError: The file cannot be written.
        """
        self._added |= {row.key: row for row in added}
        self.refresh()
        self.replace(({row.key: row for row in self._table.rows()} | self._added).values())

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
