"""Parts of the models of all files: the base of the entries, their names and patterns."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from jigsaw_triton.spec.words import NAME_PATTERN

API_VERSION = "jigsaw-triton/v1"

ADDRESS_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}$"
"""Host name, IPv4 address or IPv6 address in brackets, and a port."""

IMAGE_PATTERN = r"^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$"
LIMIT_WEIGHT = 1000.0

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Entry(BaseModel):
    """A mapping in a file, without unknown keys and without conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def long_form(key: str) -> Callable[[Any], Any]:
    """Returns a function that expands text to a mapping, such as `b` to `{node: b}` with the key `node`."""
    return lambda value: {key: value} if isinstance(value, str) else value
