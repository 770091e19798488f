"""Reads parsed JSON that somebody may have edited: checks each value and reports errors with their paths."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from jigsaw_triton.spec.words import NAME_PATTERN

MAX_NUMBER = 1e300
"""Largest number accepted where a number must be finite. A convention: no quantity in a plan comes near it."""

_NAME = re.compile(NAME_PATTERN)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_TEXT = re.compile(rf"{_WORD.pattern}(?: {_WORD.pattern})*")


class FieldError(Exception):
    """A value has the wrong type or range; the message gives its path and the reason."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value and its path in the document.

    Attributes:
        value: Parsed value.
        path: Path such as `gpus[2].layout[0].slice`; empty for the document itself.
    """

    value: Any
    path: str = ""

    def __getitem__(self, key: str) -> "Field":
        """Returns the value of a required key of an object."""
        fields = self._object()
        path = f"{self.path}.{key}" if self.path else key
        if key not in fields:
            raise FieldError(f"{path}: missing")
        return Field(fields[key], path)

    def get(self, key: str) -> "Field | None":
        """Returns the value of an optional key of an object; None if it is missing."""
        return self[key] if key in self._object() else None

    def only(self, keys: Sequence[str]) -> "Field":
        """Checks that this is an object without any other keys, and returns it."""
        for key in self._object():
            if key not in keys:
                raise self.error(f"{shortened(key)} is unknown")
        return self

    def named(self) -> "dict[str, Field]":
        """Returns the values of an object whose keys are names."""
        for key in self._object():
            if not _NAME.fullmatch(key):
                raise self.error(f"{shortened(key)} is not a name")
        return {key: self[key] for key in self._object()}

    def listed(self) -> "list[Field]":
        """Returns the values of a list."""
        if not isinstance(self.value, list | tuple):
            raise self.error(f"{shortened(self.value)} is not a list")
        return [Field(value, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def name(self) -> str:
        """Returns a name, which is safe to use in file paths."""
        return self._matching(_NAME, "a name")

    def word(self) -> str:
        """Returns text of letters, digits and the punctuation of versions and GPU models."""
        return self._matching(_WORD, "a word")

    def text(self) -> str:
        """Returns words that are separated by single spaces."""
        return self._matching(_TEXT, "text")

    def one_of(self, words: Sequence[str]) -> str:
        """Returns the value, which must be one of these words."""
        if not isinstance(self.value, str) or self.value not in words:
            raise self.error(f"{shortened(self.value)} is none of {', '.join(filter(None, words))}")
        return self.value

    def integer(self, least: int, most: int) -> int:
        """Returns an integer from `least` to `most`, both included."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.error(f"{shortened(self.value)} is not an integer from {least} to {most}")
        return self.value

    def number(self, least: float = 0.0, most: float = MAX_NUMBER) -> float:
        """Returns a number from `least` to `most`, both included; it may be infinite only if `most` is."""
        if type(self.value) not in (int, float) or not least <= self.value <= most:
            accepted = f"from {least:g} to {most:g}" if most < MAX_NUMBER else f"of at least {least:g}"
            raise self.error(f"{shortened(self.value)} is not a number {accepted}")
        try:
            return float(self.value)
        except OverflowError:
            raise self.error(f"{shortened(self.value)} is too large") from None

    def error(self, message: str) -> FieldError:
        """Makes an error whose message starts with the path of this value."""
        return FieldError(f"{self.path}: {message}" if self.path else message)

    def _matching(self, pattern: re.Pattern[str], what: str) -> str:
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            raise self.error(f"{shortened(self.value)} is not {what}")
        return self.value

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"{shortened(self.value)} is not an object")
        return self.value
