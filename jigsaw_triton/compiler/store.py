"""Writes compiled model folders, routes and whole bundles to disk. No other module of the compiler writes files.

Writes are atomic: a folder or file is created under a temporary name and then renamed. Model folders are created beside
their repository, not in it, because Triton lists everything in a repository.
"""

import errno
import filecmp
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from jigsaw_triton.compiler.bundle import Artifact, Bundle, CompiledGraph, ModelFolder, Place, RouteEntry, Worker
from jigsaw_triton.compiler.route import route_json
from jigsaw_triton.errors import InputError
from jigsaw_triton.file_copy import clone_file, copy_file
from jigsaw_triton.file_digest import sha256_of

MANIFEST_FILE = "bundle.json"
MANIFEST_VERSION = 1

_BYTECODE = "__pycache__"
"""Name of the folder that Python creates in a version folder. It is not part of the model."""

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some space, or choose another folder",
    errno.EROFS: "choose a folder on a writable file system",
    errno.EACCES: "choose a folder that you can write to, and files that you can read",
    errno.EPERM: "choose a folder that you can write to, and files that you can read",
    errno.ENOENT: "put the file back, or correct its path in graph.yaml",
}


class Identities:
    """Computes the SHA-256 of files. A file is read again only if its size or times have changed.

    The copy of a deployed file is not read: a relative path is its name, which is the SHA-256.

    Args:
        check: Function that is called again and again while a file is read. It may raise an error, which ends the call.
    """

    __slots__ = ("_check", "_known")

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._known: dict[tuple[Path, int, int, int], str] = {}

    def __call__(self, path: Path) -> str:
        """Returns the SHA-256 of a file.

        Raises:
            InputError: The file cannot be read.
        """
        if not path.is_absolute():
            return path.name
        with _explained(path, "read"):
            status = path.stat()
            key = (path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if key not in self._known:
                self._known[key] = sha256_of(path, self._check)
            return self._known[key]


def write_model(folder: ModelFolder, repository: Path, copies: Path = Path()) -> Path:
    """Writes a model to a repository.

    An existing folder with the same content is left alone, including its times, so that Triton sees no change.
    Artifacts become hard links to their sources if the file system allows it, otherwise copies.

    Args:
        folder: Model to write.
        repository: Folder of the repository, created if missing.
        copies: Folder of the copies of deployed files, which artifacts with relative paths name.

    Returns:
        Path of the model's folder.

    Raises:
        InputError: Space or permission is missing, or an artifact does not exist. Nothing has changed.
    """
    target = repository / folder.name
    with _explained(target, "written"):
        if target.is_dir() and _holds(target, folder, copies):
            return target
        repository.mkdir(parents=True, exist_ok=True)
        with _fresh(repository.parent) as fresh:
            fresh.mkdir()
            _fill(fresh, folder, copies)
            _replace(target, fresh)
    return target


def remove_model(name: str, repository: Path) -> None:
    """Removes a model from a repository. A missing model is not an error.

    Raises:
        InputError: The folder cannot be removed.
    """
    target = repository / name
    with _explained(target, "removed"), _fresh(repository.parent) as leaving, suppress(FileNotFoundError):
        target.rename(leaving)


def write_route(run_dir: Path, name: str, entries: Iterable[RouteEntry], epoch: int = 0) -> Path:
    """Writes a task's route. A reader sees either the old route or the new one.

    Args:
        run_dir: Run directory of the deployment.
        name: Name of the route.
        entries: Entries in order of preference.
        epoch: Epoch of the controller that writes it; 0 for none.

    Raises:
        InputError: Space or permission is missing. The old route remains.
    """
    return write_route_file(run_dir, name, route_json(entries, epoch))


def write_route_file(run_dir: Path, name: str, content: bytes) -> Path:
    """Writes the content of a task's route. Otherwise as `write_route`."""
    target = run_dir / "routes" / f"{name}.json"
    with _explained(target, "written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _fresh(target.parent) as fresh:
            fresh.write_bytes(content)
            fresh.replace(target)
    return target


def write_bundle(bundle: Bundle, out: Path) -> None:
    """Writes a whole bundle: `workers/<worker>/<model>`, `gateway/<model>`, `routes/<name>.json`, `bundle.json`.

    It has copies of the artifacts, so that it stays the same if their sources change. Models with the same artifact are
    hard links to one copy if the file system allows it.

    Args:
        bundle: Bundle to write.
        out: Folder that is missing or empty, or that holds an earlier bundle, which is replaced.

    Raises:
        InputError: The folder holds something else or cannot be written. It is unchanged.
    """
    with _explained(out, "written"):
        if out.exists() and not (out / MANIFEST_FILE).is_file() and any(out.iterdir()):
            raise InputError("the folder holds something else", where=str(out), hint="choose a new or an empty folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with _fresh(out.parent) as fresh, _fresh(out.parent) as copies:
            fresh.mkdir()
            copies.mkdir()
            known: dict[Path, Artifact] = {}
            for worker in bundle.workers.values():
                for model in worker.models:
                    write_model(_of_copies(model.folder, copies, known), fresh / "workers" / worker.name)
            for graph in bundle.graphs.values():
                for folder in (*graph.models, graph.front):
                    write_model(_of_copies(folder, copies, known), fresh / "gateway")
                for task in graph.tasks:
                    write_route(fresh, task.name, task.route)
            (fresh / MANIFEST_FILE).write_text(json.dumps(manifest(bundle), indent=2) + "\n", encoding="utf-8")
            _replace(out, fresh)


def manifest(bundle: Bundle) -> dict[str, Any]:
    """Returns the content of bundle.json, a description of the bundle for people."""
    return {
        "version": MANIFEST_VERSION,
        "generation": bundle.generation,
        "workers": {name: _worker_entry(worker) for name, worker in bundle.workers.items()},
        "graphs": {name: _graph_entry(graph) for name, graph in bundle.graphs.items()},
    }


def _worker_entry(worker: Worker) -> dict[str, Any]:
    return {
        **_place_entry(worker.place),
        "memory_mib": worker.memory_mib,
        "models": {
            model.name: {
                "graph": model.graph,
                "task": model.task,
                "variant": model.variant,
                "instances": model.instances,
                "batch": model.batch,
                "digest": model.digest,
            }
            for model in worker.models
        },
    }


def _place_entry(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {"node": None, "gpu": None, "model": None, "slice": None, "start": None}
    return {
        "node": place.gpu.node,
        "gpu": place.gpu.index,
        "model": place.board,
        "slice": place.placement.slice,
        "start": place.placement.start,
    }


def _graph_entry(graph: CompiledGraph) -> dict[str, Any]:
    return {
        "target": graph.target,
        "front": graph.front.name,
        "pipeline": graph.pipeline.name if graph.pipeline is not None else None,
        "tasks": {task.task: task.name for task in graph.tasks},
    }


def _fill(target: Path, folder: ModelFolder, copies: Path) -> None:
    for name, content in folder.files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Artifact):
            _bring(copies / content.source, path)
        else:
            path.write_bytes(content)


def _bring(source: Path, path: Path) -> None:
    """Creates a hard link, or a copy if the file system does not allow a link."""
    real = _readable(source)
    try:
        path.hardlink_to(real)
    except OSError:
        copy_file(real, path)


def _of_copies(folder: ModelFolder, copies: Path, known: dict[Path, Artifact]) -> ModelFolder:
    """Returns a model folder whose artifacts are copies of the original ones.

    Args:
        folder: Model folder.
        copies: Folder of the copies.
        known: Source of an artifact -> its copy. Copies that are missing are made.
    """
    files = dict(folder.files)
    for name, content in folder.files.items():
        if not isinstance(content, Artifact):
            continue
        if content.source not in known:
            source, copy = _readable(content.source), copies / str(len(known))
            if not clone_file(source, copy):
                copy_file(source, copy)
            known[content.source] = Artifact(copy)
        files[name] = known[content.source]
    return replace(folder, files=files)


def _readable(source: Path) -> Path:
    """Returns the path of an artifact without symbolic links, once it could be opened."""
    with _explained(source, "read"), source.open("rb"):
        return source.resolve()


def _holds(target: Path, folder: ModelFolder, copies: Path) -> bool:
    """Returns True if a folder on disk has exactly the content of a model folder."""
    found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file() and _BYTECODE not in p.parts}
    if found != set(folder.files):
        return False
    for name, content in folder.files.items():
        path = target / name
        if isinstance(content, Artifact):
            source = copies / content.source
            with _explained(source, "read"):
                if not path.samefile(source) and not filecmp.cmp(path, source, shallow=False):
                    return False
        elif path.read_bytes() != content:
            return False
    return True


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """Yields an unused path in a folder, and removes whatever is at this path in the end."""
    path = folder / f".new-{uuid4().hex}"
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _replace(target: Path, fresh: Path) -> None:
    """Moves a finished folder into place. The previous one is removed, or restored if the move fails."""
    if not target.exists():
        fresh.rename(target)
        return
    with _fresh(fresh.parent) as leaving:
        target.rename(leaving)
        try:
            fresh.rename(target)
        except OSError:
            leaving.rename(target)
            raise


@contextmanager
def _explained(place: Path, done: str) -> Iterator[None]:
    """Converts errors of the operating system to an `InputError` with the path and a hint."""
    try:
        yield
    except OSError as error:
        # On a read, ENOENT means a missing artifact. On a write, it means that a folder cannot be created, as in /proc.
        number = errno.EACCES if error.errno == errno.ENOENT and done == "written" else error.errno
        raise InputError(
            f"the file or folder cannot be {done} ({error.strerror})",
            where=str(place),
            hint=_REMEDIES.get(number or 0, "check this path"),
        ) from error
