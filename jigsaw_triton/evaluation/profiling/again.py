"""The file with the configurations that an unfinished `profile --again` has measured, beside profiles.csv."""

from collections.abc import Iterable
from pathlib import Path

from jigsaw_triton.evaluation.profiling.failures import read_keys, write_keys
from jigsaw_triton.profiles.table import ProfileKey


class Again:
    """Configurations that need not be measured again a second time when the command is repeated.

    Args:
        sheet: Path of the profiles.csv that they belong to.

    Raises:
        InputError: The file exists and has errors.
    """

    def __init__(self, sheet: Path) -> None:
        self.path = sheet.with_suffix(".again.json")
        hint = "delete the file; `profile --again` then measures all of them"
        self._done = frozenset(read_keys(self.path, "this is not a list of configurations", hint))

    @property
    def done(self) -> frozenset[ProfileKey]:
        """Configurations that were measured, or that failed."""
        return self._done

    def add(self, key: ProfileKey) -> None:
        """Adds a configuration, and replaces the file.

        Raises:
            InputError: The file cannot be written.
        """
        self._replace(self._done | {key})

    def finish(self, keys: Iterable[ProfileKey]) -> None:
        """Removes the configurations of a finished run. The file is deleted if none is left.

        Raises:
            InputError: The file cannot be written.
        """
        if left := self._done.intersection(keys):
            self._replace(self._done - left)

    def _replace(self, done: frozenset[ProfileKey]) -> None:
        write_keys(self.path, {key: {} for key in sorted(done)})
        self._done = done
