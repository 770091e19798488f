"""JSON merge patches (RFC 7396). Pure."""

from collections.abc import Mapping
from typing import Any


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the patch that makes one object of another; empty if they are equal.

    A value None in `after` is like a missing key, since a patch can only remove it.
    """
    patch: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif old != value:
            patch[key] = value
    patch.update((key, None) for key, old in before.items() if old is not None and key not in after)
    return patch
