"""Reading parsed JSON that somebody may have edited: each value by what it has to be, each mistake by its place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from jigsaw_triton.spec.words import NAME_PATTERN

LARGEST = 1e300
"""Of finite numbers; what is greater is none that anybody measured."""

_NAME = re.compile(NAME_PATTERN)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class FieldError(Exception):
    """A value is not what it has to be; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value and where in its document it stands.

    Attributes:
        value: As it was parsed.
        path: Such as `gpus[2].layout[0].slice`; empty for the document.
    """

    value: Any
    path: str = ""

    def __getitem__(self, key: str) -> "Field":
        """The value of an object's key, which it has to have."""
        fields = self._object()
        path = f"{self.path}.{key}" if self.path else key
        if key not in fields:
            raise FieldError(f"{path}: missing")
        return Field(fields[key], path)

    def only(self, keys: Sequence[str]) -> "Field":
        """Itself, an object that has no other keys."""
        for key in self._object():
            if key not in keys:
                raise self.error(f"{shortened(key)} is unknown")
        return self

    def named(self) -> "dict[str, Field]":
        """The values of an object whose keys are names."""
        for key in self._object():
            if not _NAME.fullmatch(key):
                raise self.error(f"{shortened(key)} is not a name")
        return {key: self[key] for key in self._object()}

    def listed(self) -> "list[Field]":
        """The values of a list."""
        if not isinstance(self.value, list | tuple):
            raise self.error(f"{shortened(self.value)} is not a list")
        return [Field(value, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def name(self) -> str:
        """A name, which may become part of paths."""
        return self._matching(_NAME, "a name")

    def word(self) -> str:
        """Text of letters, digits and the signs that stand in versions and models."""
        return self._matching(_WORD, "a word")

    def one_of(self, words: Sequence[str]) -> str:
        """One of these words."""
        if not isinstance(self.value, str) or self.value not in words:
            raise self.error(f"{shortened(self.value)} is none of {', '.join(filter(None, words))}")
        return self.value

    def whole(self, least: int, most: int) -> int:
        """A whole number between these, themselves included."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.error(f"{shortened(self.value)} is not a whole number from {least} to {most}")
        return self.value

    def number(self, least: float = 0.0, most: float = LARGEST) -> float:
        """A number between these, themselves included; infinite only where `most` is."""
        if type(self.value) not in (int, float) or not least <= self.value <= most:
            upto = f" to {most:g}" if most < LARGEST else " on"
            raise self.error(f"{shortened(self.value)} is not a number from {least:g}{upto}")
        try:
            return float(self.value)
        except OverflowError:
            raise self.error(f"{shortened(self.value)} is too large") from None

    def error(self, message: str) -> FieldError:
        """What is wrong, with the place."""
        return FieldError(f"{self.path}: {message}" if self.path else message)

    def _matching(self, pattern: re.Pattern[str], what: str) -> str:
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            raise self.error(f"{shortened(self.value)} is not {what}")
        return self.value

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"{shortened(self.value)} is not an object")
        return self.value
