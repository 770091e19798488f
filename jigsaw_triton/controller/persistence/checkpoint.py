"""Checkpoints of the core's state in the journal, from which the next controller goes on.

A checkpoint has the names of the fields of each class. So a later release reads it too: fields that it has added get
their defaults. It consists of a pickle of a whole state and of later pickles, each of which has only the values that no
earlier one has.
"""

import io
import pickle
from contextlib import closing
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from jigsaw_triton import __version__
from jigsaw_triton.controller.core.recovery import essential
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import StateError
from jigsaw_triton.profiles.table import ProfileTable

_FORMAT = 11
"""Version of the checkpoint format. Raise it when a class of the state loses a field, gets one without a default, or
gives one another meaning: controllers then refuse earlier checkpoints. A new field with a default does not."""

VERSION = f"{__version__}/{_FORMAT}"
"""Release and format of new checkpoints."""

_CLASSES = frozenset({("pathlib", "PosixPath"), ("builtins", "frozenset"), ("collections", "Counter")})
"""(module, name) of the classes outside this package that a state may contain."""

_TRIGGERS = (
    "phase",
    "asked",
    "paused",
    "wanted",
    "running",
    "standby",
    "pending",
    "restore_at_s",
    "actual",
    "queued",
    "restarts",
    "overloaded",
    "lost",
    "cordoned",
    "replan",
    "next_id",
    "next_generation",
)
"""Fields of which each change is written at once, as those of `inflight` are. Measurements change each second, and the
next controller measures anew."""

_LEARNED_S = 60.0
"""Seconds between two checkpoints for what has been learned of the load, which changes all the time."""


class UnknownFormatError(StateError):
    """A checkpoint is of a release whose format this one does not know."""


class Checkpoints:
    """Writes checkpoints of the core's state. The next one takes the place of the last.

    A change of a large deployment consists of hundreds of steps, and each alters little of the state. So a checkpoint
    adds to the last one what is new. Once the additions are larger than a whole state, another whole one takes their
    place, which is made beside the controller's other work.

    Args:
        journal: Journal of the deployment.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._saved: State | None = None
        self._chain: _Chain | None = None

    @property
    def is_long(self) -> bool:
        """True if it is time to call `renewed` and `replace`."""
        return self._chain is not None and self._chain.added > self._chain.whole

    def save(self, state: State) -> None:
        """Writes a checkpoint if anything has changed that the next controller needs.

        Args:
            state: State to keep. Its values never change.
        """
        needed, saved = essential(state), self._saved
        if saved is not None:
            if not _differs(saved, needed):
                return
            if needed.demand == saved.demand:
                # The next pickle refers to values that the last one has, but not to their equals.
                needed = replace(needed, demand=saved.demand)
        self._saved = needed
        if self._chain is None:
            self._chain = _Chain()
            self._journal.keep_checkpoint(VERSION, self._chain.pickled(needed))
        else:
            self._journal.extend_checkpoint(self._chain.pickled(needed))

    def renewed(self) -> "Renewed":
        """Returns the last saved state as a whole. It takes long; any thread may call it, also during `save`."""
        saved = self._saved
        assert saved is not None
        chain = _Chain()
        return Renewed(chain, chain.pickled(saved))

    def replace(self, renewed: "Renewed") -> None:
        """Writes a checkpoint that begins with a whole state, in place of the last one.

        Args:
            renewed: State by `renewed`. The checkpoint has what was saved since, too.
        """
        assert self._saved is not None
        self._chain = renewed.chain
        self._journal.keep_checkpoint(VERSION, renewed.whole + self._chain.pickled(self._saved))


class _Chain:
    """Pickles of a state and of later ones, which refer to the values of earlier ones and add the others.

    Attributes:
        whole: Size of the first pickle in bytes.
        added: Size of the later ones.
    """

    def __init__(self) -> None:
        self._written = io.BytesIO()
        # The pickler remembers the values that it has written, so that later pickles can refer to them.
        self._pickler = _Pickler(self._written, pickle.HIGHEST_PROTOCOL)
        self.whole = self.added = 0

    def pickled(self, state: State) -> bytes:
        """Returns the next pickle."""
        self._written.seek(0)
        self._written.truncate()
        self._pickler.dump(state)
        data = self._written.getvalue()
        if self.whole:
            self.added += len(data)
        else:
            self.whole = len(data)
        return data


@dataclass(frozen=True, slots=True)
class Renewed:
    """A whole state that no checkpoint has yet.

    Attributes:
        chain: Chain that begins with it.
        whole: Pickle of the state.
    """

    chain: _Chain
    whole: bytes


def _differs(saved: State, state: State) -> bool:
    """Returns True if a state has something that the next controller needs, and the last checkpoint lacks."""
    if saved.inflight != state.inflight or any(getattr(saved, name) is not getattr(state, name) for name in _TRIGGERS):
        return True
    return state.now_s >= saved.now_s + _LEARNED_S and state.demand != saved.demand


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
        UnknownFormatError: The checkpoint has a format that this release does not know.
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
    """Returns True if this release can read what another one wrote.

    Args:
        version: `VERSION` of the other release.
    """
    return version.partition("/")[2] == str(_FORMAT)


def _is_value(cls: type) -> bool:
    """Returns True for classes whose instances are made of their fields alone."""
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return is_dataclass(cls) or issubclass(cls, Enum) or named_tuple or cls is ProfileTable


def _made(layout: tuple[type, tuple[str, ...]], *given: Any) -> Any:
    """Makes a dataclass of its fields, without a call of its code. Fields that are missing get their defaults.

    Args:
        layout: The dataclass, and the names of the fields that are given.
        given: Values of these fields.
    """
    cls, names = layout
    made: Any = object.__new__(cls)
    known, values = fields(cls), dict(zip(names, given, strict=True))
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
    """Writes the fields of dataclasses, and their names once for each class."""

    def reducer_override(self, value: Any) -> Any:
        """Returns what makes a dataclass, in the form of `__reduce__`; `NotImplemented` for everything else."""
        cls: type = type(value)
        layout = _layout(cls)
        return NotImplemented if layout is None else (_made, (layout, *[getattr(value, name) for name in layout[1]]))


@cache
def _layout(cls: type) -> tuple[type, tuple[str, ...]] | None:
    """Returns a dataclass and the names of its fields; None for another class.

    It is one object for each class, to which pickles refer.
    """
    return (cls, tuple(field.name for field in fields(cls))) if is_dataclass(cls) else None


class _Unpickler(pickle.Unpickler):
    """Makes values of this package's classes, and calls nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Returns the class of this name.

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
