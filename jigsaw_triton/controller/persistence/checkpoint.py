"""Checkpoints of the core's state in the journal, from which the next controller goes on."""

import io
import pickle
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from jigsaw_triton import __version__
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import StateError
from jigsaw_triton.profiles.table import ProfileTable

_FORMAT = 5
"""Version of the checkpoint format. Raise it when a class of the state changes its fields."""

VERSION = f"{__version__}/{_FORMAT}"

_CLASSES = frozenset({("pathlib", "PosixPath"), ("builtins", "frozenset"), ("collections", "Counter")})
"""(module, name) of the classes outside this package that a state may contain."""

_KEPT = (
    "phase",
    "asked",
    "paused",
    "wanted",
    "running",
    "standby",
    "solved",
    "pending",
    "actual",
    "inflight",
    "queued",
    "restarts",
    "overloaded",
)
"""Fields of the state whose change causes a new checkpoint. Measurements change each second, and the next controller
measures anew."""


def save(journal: Journal, before: State | None, state: State) -> None:
    """Writes a checkpoint if anything has changed that the next controller needs.

    Args:
        journal: Journal of the deployment.
        before: State of the last checkpoint; None if there is none.
        state: State to keep.
    """
    if before is None or any(getattr(before, name) is not getattr(state, name) for name in _KEPT):
        journal.keep_checkpoint(VERSION, pickled(state))


def pickled(value: Any) -> bytes:
    """Returns a value of the core as bytes, which `unpickled` reads."""
    return pickle.dumps(value)


def unpickled(data: bytes) -> Any:
    """Returns the value that `pickled` wrote. Makes values of this package's classes, and calls nothing else.

    Raises:
        StateError: The data is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:
        # Damaged data makes unpickling raise nearly anything.
        raise StateError(f"cannot be read ({error})", where="the checkpoint in the journal") from error


def load(journal: Journal) -> State | None:
    """Returns the state of the last checkpoint; None if there is none.

    Raises:
        StateError: The checkpoint is of another release, or damaged.
    """
    version, data = journal.checkpoint()
    if not data:
        return None
    if version != VERSION:
        raise StateError(
            f"the last controller was of another release ({version.partition('/')[0]})",
            where="the checkpoint in the journal",
            hint="the servers that it left are ended",
        )
    state = unpickled(data)
    if not isinstance(state, State):
        raise StateError("is not a state", where="the checkpoint in the journal")
    return state


def _is_value(cls: type) -> bool:
    """True for classes whose instances are made of their fields alone."""
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return is_dataclass(cls) or issubclass(cls, Enum) or named_tuple or cls is ProfileTable


class _Unpickler(pickle.Unpickler):
    """Makes values of this package's classes, and calls nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The class of this name.

        Raises:
            UnpicklingError: A state contains no such thing.
        """
        if (module_name, global_name) in _CLASSES:
            return super().find_class(module_name, global_name)
        # A name with dots would reach what a module has imported.
        if module_name.startswith("jigsaw_triton.") and "." not in global_name:
            found = super().find_class(module_name, global_name)
            if isinstance(found, type) and found.__module__ == module_name and _is_value(found):
                return found
        raise pickle.UnpicklingError(f"a state contains no {module_name}.{global_name}")
