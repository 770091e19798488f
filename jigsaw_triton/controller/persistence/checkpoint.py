"""Checkpoints of the core's state in the journal, from which the next controller goes on.

A checkpoint has the fields of each value by name. So a later release reads it too: fields that it has added get their
defaults. It consists of a pickle of a whole state and of later pickles, each of which has only the values that no
earlier one has.
"""

import io
import pickle
from collections.abc import Mapping
from contextlib import closing
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from jigsaw_triton import __version__
from jigsaw_triton.controller.core.load import learned
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import StateError
from jigsaw_triton.profiles.table import ProfileTable

_FORMAT = 7
"""Version of the checkpoint format. Raise it when a class of the state loses a field, gets one without a default, or
gives one another meaning: controllers then refuse earlier checkpoints. A new field with a default does not."""

VERSION = f"{__version__}/{_FORMAT}"
"""Release and format of new checkpoints."""

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
    "restore_at_s",
    "actual",
    "inflight",
    "queued",
    "restarts",
    "overloaded",
    "lost",
    "replan",
)
"""Fields of the state whose change causes a new checkpoint. Measurements change each second, and the next controller
measures anew."""


_LEARNED_S = 60.0
"""Seconds between two checkpoints for what has been learned of the load, which changes all the time."""


class UnknownFormatError(StateError):
    """A checkpoint is of a release whose format this one does not know."""


class Checkpoints:
    """Writes checkpoints of the core's state. The next one takes the place of the last.

    A change of a large deployment consists of hundreds of steps, and each alters little of the state. So a checkpoint
    adds to the last one what is new, until the additions are larger than a whole state.

    Args:
        journal: Journal of the deployment.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._saved: State | None = None
        self._whole = self._added = 0
        self._begin()

    def save(self, state: State) -> None:
        """Writes a checkpoint if anything has changed that the next controller needs.

        Args:
            state: State to keep. Its values never change.
        """
        saved = self._saved
        if saved is not None and not _differs(saved, state):
            return
        self._saved = state
        if self._added > self._whole:
            self._begin()
        data = self._pickled(state)
        if not self._whole:
            self._whole = len(data)
            self._journal.keep_checkpoint(VERSION, data)
        else:
            self._added += len(data)
            self._journal.extend_checkpoint(data)

    def _begin(self) -> None:
        """Begins with a whole state. A pickler refers to the values that it has written before, and keeps them."""
        self._written = io.BytesIO()
        self._pickler = _Pickler(self._written, pickle.HIGHEST_PROTOCOL)
        self._whole = self._added = 0

    def _pickled(self, state: State) -> bytes:
        self._written.seek(0)
        self._written.truncate()
        self._pickler.dump(state)
        return self._written.getvalue()


def _differs(saved: State, state: State) -> bool:
    """Returns True if a state has something that the next controller needs, and the last checkpoint lacks."""
    if any(getattr(saved, name) is not getattr(state, name) for name in _KEPT):
        return True
    return state.now_s >= saved.now_s + _LEARNED_S and learned(state.demand) != learned(saved.demand)


def pickled(value: Any) -> bytes:
    """Returns a value of the core as bytes, which `unpickled` reads."""
    written = io.BytesIO()
    _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(value)
    return written.getvalue()


def unpickled(data: bytes) -> Any:
    """Returns the value that `pickled` or `Checkpoints` wrote.

    Makes values of this package's classes, and calls nothing else.

    Raises:
        StateError: The data is damaged.
    """
    try:
        read = io.BytesIO(data)
        unpickler = _Unpickler(read)
        value = unpickler.load()
        while read.tell() < len(data):
            value = unpickler.load()
        return value
    except Exception as error:
        # Damaged data makes unpickling raise nearly anything.
        raise StateError(f"cannot be read ({error})", where="the checkpoint in the journal") from error


def load(journal: JournalReader) -> State | None:
    """Returns the state of the last checkpoint; None if there is none.

    Raises:
        UnknownFormatError: A release with another format wrote the checkpoint.
        StateError: The checkpoint is damaged.
    """
    _check_format(journal)
    _, data = journal.checkpoint()
    if not data:
        return None
    state = unpickled(data)
    if not isinstance(state, State):
        raise StateError("is not a state", where="the checkpoint in the journal")
    return state


def check_format(journal: Path) -> None:
    """Checks that this release can read the last checkpoint in a journal, if there is one.

    Whoever goes on with the servers of the last controller calls this before `Journal` upgrades the file, because the
    release that can read the checkpoint may refuse an upgraded journal.

    Args:
        journal: Path of the journal.

    Raises:
        UnknownFormatError: It cannot.
        StateError: The journal cannot be read.
    """
    if journal.exists():
        with closing(JournalReader(journal)) as reader:
            _check_format(reader)


def _check_format(journal: JournalReader) -> None:
    version, data = journal.checkpoint()
    if data and not is_readable(version):
        release = version.partition("/")[0]
        raise UnknownFormatError(
            f"the controller that ran here was of release {release}, whose state release {__version__} cannot read",
            where="the checkpoint in the journal",
            hint=f"the servers go on: use release {release}, or take them down with `jigsaw-triton down` first",
        )


def is_readable(version: str) -> bool:
    """True if this release can read what another one wrote.

    Args:
        version: Its `VERSION`.
    """
    return version.partition("/")[2] == str(_FORMAT)


def _is_value(cls: type) -> bool:
    """True for classes whose instances are made of their fields alone."""
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return is_dataclass(cls) or issubclass(cls, Enum) or named_tuple or cls is ProfileTable


def _made(cls: type, values: Mapping[str, Any]) -> Any:
    """Makes a dataclass of its fields, without a call of its code. Fields that are missing get their defaults."""
    made: Any = object.__new__(cls)
    known = fields(cls)
    if lost := values.keys() - {field.name for field in known}:
        raise pickle.UnpicklingError(f"{cls.__name__} has no field {', '.join(sorted(lost))}")
    for field in known:
        if field.name in values:
            value = values[field.name]
        elif field.default is not MISSING:
            value = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            raise pickle.UnpicklingError(f"{cls.__name__} needs a field {field.name}")
        object.__setattr__(made, field.name, value)
    return made


class _Pickler(pickle.Pickler):
    """Writes the fields of dataclasses by name."""

    def reducer_override(self, value: Any) -> Any:
        """Returns what makes a dataclass, in the form of `__reduce__`; `NotImplemented` for everything else."""
        cls: type = type(value)
        names = _fields_of(cls)
        return NotImplemented if names is None else (_made, (cls, {name: getattr(value, name) for name in names}))


@cache
def _fields_of(cls: type) -> tuple[str, ...] | None:
    """Returns the names of a dataclass's fields; None for another class."""
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else None


class _Unpickler(pickle.Unpickler):
    """Makes values of this package's classes, and calls nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The class of this name.

        Raises:
            UnpicklingError: A state contains no such thing.
        """
        if (module_name, global_name) == (__name__, _made.__name__):
            return _made
        if (module_name, global_name) in _CLASSES:
            return super().find_class(module_name, global_name)
        # A name with dots would reach what a module has imported.
        if module_name.startswith("jigsaw_triton.") and "." not in global_name:
            found = super().find_class(module_name, global_name)
            if isinstance(found, type) and found.__module__ == module_name and _is_value(found):
                return found
        raise pickle.UnpicklingError(f"a state contains no {module_name}.{global_name}")
