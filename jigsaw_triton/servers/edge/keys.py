"""Reads the file of API keys, which has one `NAME KEY` pair per line."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEAST = 16
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's key.

    Attributes:
        name: Name of the client, for the log and the rate limit.
        sha256: Digest of the key, in hexadecimal.
    """

    name: str
    sha256: str


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Reads the keys of a file. Ignores empty lines and lines that start with `#`.

    Raises:
        InputError: The file cannot be read or has a mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        hint = "check the path and its permissions"
        raise InputError(f"the file of API keys cannot be read: {error}", where=str(path), hint=hint) from error
    return parse_keys(text, str(path))


def parse_keys(text: str, where: str) -> tuple[ApiKey, ...]:
    """Parses the text of a file of keys.

    Args:
        text: Text with one `NAME KEY` pair per line; KEY may be `sha256:` and the key's digest in hexadecimal.
        where: Path of the file, for messages.

    Raises:
        InputError: A line does not have this form, or two clients have the same key.
    """
    found: dict[str, ApiKey] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"{where}:{number}"
        if len(words) != 2 or not _NAME.fullmatch(words[0]):
            hint = "write NAME KEY, where NAME has up to 64 letters, digits, '.', '_' and '-'"
            raise InputError("the line is not a name and a key", where=place, hint=hint)
        digest = _DIGEST.fullmatch(words[1])
        if digest is None and len(words[1]) < _LEAST:
            raise InputError("the key is too short", where=place, hint=f"use at least {_LEAST} characters")
        sha256 = digest[1] if digest is not None else hashlib.sha256(words[1].encode()).hexdigest()
        if sha256 in found:
            message = f"the key is also that of {found[sha256].name}"
            raise InputError(message, where=place, hint="give each client a key of its own")
        found[sha256] = ApiKey(words[0], sha256)
    return tuple(found.values())
