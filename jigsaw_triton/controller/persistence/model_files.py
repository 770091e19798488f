"""Copies of the files of deployed models, in the state folder of the deployment.

What was deployed stays servable until it is replaced, whatever happens to the files themselves. In the graphs of a
deployment a path is therefore the name of a copy, the SHA-256 of its content. So neither the state of a controller nor
a generation depends on where the copies are.
"""

import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.history import recorded, restorable
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.file_copy import clone_file, copy_file
from jigsaw_triton.graph.model import TaskGraph, Variant
from jigsaw_triton.sizes import readable

_NEW = ".new"
"""Suffix of a copy that is being made."""


class ModelFiles:
    """Copies of the files of deployed models, each named by the SHA-256 of its content. One process has them.

    Args:
        folder: Folder of the copies, created if missing. Copies that an earlier process has begun are removed.

    Attributes:
        folder: The folder.
        size_bytes: Size of all copies together. The file system may share their blocks with the originals.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._contents = Contents(folder)
        self._stopped = threading.Event()
        self._identity = Identities(self._check_stopped)
        self._lock = threading.Lock()
        """Held while copies are made, looked up or removed, so that none goes which a call is about to name."""
        self._names: dict[int, frozenset[str]] = {}
        """Number of an earlier generation -> names of the copies that it uses."""
        for path in folder.glob(f"*{_NEW}"):
            path.unlink()
        self.size_bytes = self._measured()

    def keep(self, graphs: Mapping[str, TaskGraph]) -> dict[str, TaskGraph]:
        """Makes copies of the files of graphs, and returns the graphs with their names. Blocks.

        Args:
            graphs: Graphs, by name. Files that are copies already stay as they are.

        Raises:
            InputError: A file cannot be read or changes meanwhile, or there is no space. No copy is left behind.
            StateError: `stop` was called. No copy is left behind.
        """
        copies = self.add({path for graph in graphs.values() for path in _files(graph) if path.is_absolute()})
        return {name: _with_copies(graph, copies) for name, graph in graphs.items()}

    def add(self, files: Collection[Path]) -> dict[Path, Path]:
        """Makes copies of files, all of them or none, and returns the name of each. Blocks.

        Each file is read once for its SHA-256, and not again as long as its size and times stay the same. What there is
        a copy of is not copied again.

        Args:
            files: Absolute paths.

        Raises:
            JigsawError: As for `keep`.
        """
        digests = {path: self._identity(path) for path in sorted(files)}
        with self._lock, self._begun(digests.values()) as begun:
            sources = {digest: path for path, digest in digests.items() if digest in begun}
            self._copy({sources[digest]: path for digest, path in begun.items()})
            for path, digest in digests.items():
                if self._identity(path) != digest:
                    hint = "deploy again once nothing writes to it"
                    raise InputError("the file has changed while it was copied", where=str(path), hint=hint)
            for digest, path in begun.items():
                path.rename(self._contents.path(digest))
            # Asking for the files keeps them for some minutes, until the state of the controller names them.
            self._contents.missing(digests.values())
        self.size_bytes = self._measured()
        return {path: Path(digest) for path, digest in digests.items()}

    def stop(self) -> None:
        """Has calls of `keep` and `add` fail soon, those in progress included. They leave no copy behind."""
        self._stopped.set()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            message = "the controller ends, so the model files are not copied"
            raise StateError(message, where=str(self.folder), hint="deploy again")

    def lacks(self, graphs: Mapping[str, TaskGraph]) -> bool:
        """Returns True if there is no copy of a file of a deployed graph. Copies stay for some minutes from now on."""
        with self._lock:
            return bool(self._contents.missing(names(graphs)))

    def collect(self, state: State, journal: Journal) -> None:
        """Removes the copies that no generation uses to which the deployment can still change. Blocks.

        Nothing is removed while copies are made.

        Args:
            state: State of the controller.
            journal: Journal with the generations to which a rollback can return.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            used = {name for wanted in _inputs(state) for name in names(wanted.graphs)}
            # Generations are large, so they are read only if copies would go, and each of them once.
            if next(self._contents.unused(used), None) is None:
                return
            for number in restorable(journal):
                if number not in self._names:
                    found = recorded(journal, number)
                    self._names[number] = names(found.wanted.graphs) if found is not None else frozenset()
                used |= self._names[number]
            self._contents.collect(used)
            self.size_bytes = self._measured()
        finally:
            self._lock.release()

    @contextmanager
    def _begun(self, digests: Collection[str]) -> Iterator[dict[str, Path]]:
        """Yields the missing ones of some digests, and the path of each copy until it is whole.

        What is left at these paths in the end is removed.
        """
        begun = {digest: self.folder / f"{digest}{_NEW}" for digest in self._contents.missing(digests)}
        try:
            yield begun
        finally:
            for path in begun.values():
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _copy(self, files: Mapping[Path, Path]) -> None:
        """Copies files, whose copies may share their blocks.

        Args:
            files: File -> path of its copy.
        """
        where, hint = str(self.folder), "free some space, or choose another folder with --state"
        try:
            copied = {source: target for source, target in files.items() if not clone_file(source, target)}
            need, free = sum(source.stat().st_size for source in copied), shutil.disk_usage(self.folder).free
            if need > free:
                message = f"the copies of the model files need {readable(need)} of disk, but {readable(free)} are free"
                raise InputError(message, where=where, hint=hint)
            for source, target in copied.items():
                copy_file(source, target, self._check_stopped)
            for target in files.values():
                _make_durable(target)
        except OSError as error:
            for source in files:
                # The error of a file that has gone meanwhile names it.
                self._identity(source)
            said = error.strerror or str(error)
            raise InputError(f"the model files cannot be copied ({said})", where=where, hint=hint) from error

    def _measured(self) -> int:
        sizes = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sum(sizes)


def names(graphs: Mapping[str, TaskGraph]) -> frozenset[str]:
    """Returns the names of the copies that deployed graphs use."""
    return frozenset(path.name for graph in graphs.values() for path in _files(graph))


def _inputs(state: State) -> Iterator[Wanted]:
    """Yields the input of each generation that serves or may still be asked for."""
    for asked in (state.running, state.pending, state.asked, state.queued):
        if asked is not None:
            yield asked.wanted
    if state.wanted is not None:
        yield state.wanted


def _files(graph: TaskGraph) -> Iterator[Path]:
    for task in graph.tasks.values():
        for variant in task.variants:
            yield from variant.artifacts.values()
    yield from graph.samples.values()


def _with_copies(graph: TaskGraph, copies: Mapping[Path, Path]) -> TaskGraph:
    """Returns a graph with the names of copies in place of the files."""

    def renamed(files: Mapping[str, Path]) -> dict[str, Path]:
        return {name: copies.get(path, path) for name, path in files.items()}

    def with_copies(variant: Variant) -> Variant:
        return replace(variant, artifacts=renamed(variant.artifacts))

    tasks = {name: replace(task, variants=tuple(map(with_copies, task.variants))) for name, task in graph.tasks.items()}
    return replace(graph, tasks=tasks, samples=renamed(graph.samples))


def _make_durable(path: Path) -> None:
    """Makes a copy read-only. After a power failure, a file of its name does not lack its content."""
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o400)
        os.fsync(file.fileno())
