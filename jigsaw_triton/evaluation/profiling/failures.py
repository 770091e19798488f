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
        self._reasons = _read(self.path) if self.path.exists() else {}

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
        entries = [{**asdict(key), "reason": reason} for key, reason in sorted(reasons.items())]
        try:
            if entries:
                replace_text(self.path, json.dumps(entries, indent=2) + "\n")
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"the file cannot be written ({error.strerror})", where=str(self.path), hint="choose another with -O"
            ) from error
        self._reasons = reasons


def _read(path: Path) -> dict[ProfileKey, str]:
    try:
        found = {}
        for entry in json.loads(load_text(path, limit_bytes=LIMIT_BYTES)):
            reason, key = str(entry.pop("reason")), ProfileKey(**entry)
            if not all(isinstance(name, str) for name in (key.gpu, key.task, key.variant, key.slice)):
                raise TypeError("a name is not a text")
            found[replace(key, instances=int(key.instances), batch=int(key.batch))] = reason
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            "this is not a list of failed configurations",
            where=str(path),
            hint="delete the file; `profile` then tries them again",
        ) from error
    return found
