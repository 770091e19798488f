"""The file with the configurations that failed, beside profiles.csv. A later run does not try them again."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.profiles.read import LIMIT_BYTES
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.spec.files import load_text, replace_text


class Failures:
    """Reasons why configurations could not be measured.

    Args:
        sheet: Path of the profiles.csv that they belong to.

    Raises:
        InputError: The file exists and has errors.
    """

    def __init__(self, sheet: Path) -> None:
        self.path = sheet.with_suffix(".failed.json")
        self._reasons = _read(self.path)

    @property
    def reasons(self) -> Mapping[ProfileKey, str]:
        """Reason by configuration."""
        return self._reasons

    def add(self, key: ProfileKey, reason: str) -> None:
        """Adds a failed configuration, and replaces the file.

        Raises:
            InputError: The file cannot be written.
        """
        self._replace(self._reasons | {key: reason})

    def remove(self, keys: Iterable[ProfileKey]) -> None:
        """Removes configurations, which may be tried again. The file is deleted if none is left.

        Raises:
            InputError: The file cannot be written.
        """
        removed = set(keys)
        if removed & self._reasons.keys():
            self._replace({key: reason for key, reason in self._reasons.items() if key not in removed})

    def _replace(self, reasons: dict[ProfileKey, str]) -> None:
        write_keys(self.path, {key: {"reason": reason} for key, reason in sorted(reasons.items())})
        self._reasons = reasons


def write_keys(path: Path, entries: Mapping[ProfileKey, Mapping[str, str]]) -> None:
    """Replaces a file with a list of configurations, or deletes it if there are none.

    Args:
        path: Path of the file.
        entries: Configuration -> further fields of its entry.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        if entries:
            replace_text(path, json.dumps([{**asdict(key), **more} for key, more in entries.items()], indent=2) + "\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"the file cannot be written ({error.strerror})", where=str(path), hint="choose another with -O"
        ) from error


def read_keys(path: Path, message: str, hint: str) -> dict[ProfileKey, dict[str, str]]:
    """Returns the configurations in a file that `write_keys` has written, with further fields; none without the file.

    Args:
        path: Path of the file.
        message: Message if the file has errors.
        hint: Advice in this case.

    Raises:
        InputError: The file has errors.
    """
    if not path.exists():
        return {}
    try:
        found = {}
        for entry in json.loads(load_text(path, limit_bytes=LIMIT_BYTES)):
            more = {name: str(entry.pop(name)) for name in list(entry) if name not in ProfileKey.__slots__}
            key = ProfileKey(**entry)
            if not all(isinstance(name, str) for name in (key.gpu, key.task, key.variant, key.slice)):
                raise TypeError("a name is not a text")
            found[replace(key, instances=int(key.instances), batch=int(key.batch))] = more
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(message, where=str(path), hint=hint) from error
    return found


def _read(path: Path) -> dict[ProfileKey, str]:
    message, hint = "this is not a list of failed configurations", "delete the file; `profile` then tries them again"
    found = read_keys(path, message, hint)
    if any("reason" not in more for more in found.values()):
        raise InputError(message, where=str(path), hint=hint)
    return {key: more["reason"] for key, more in found.items()}
