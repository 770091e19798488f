"""Disk space and shared memory that a new plan needs, checked before any of its servers starts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from jigsaw_triton.compiler.bundle import Bundle, ModelFolder, WorkerModel
from jigsaw_triton.errors import InputError
from jigsaw_triton.sizes import readable

SHM = Path("/dev/shm")

_SERVER_BYTES = 2**20
"""Bytes of disk for the first lines of a server's log."""

_BLOCK_BYTES = 4096
"""Bytes of disk that a file takes at least."""

_PROCESS_BYTES = 2**20
"""Size of the region that Triton's Python backend creates for each process of a model (Triton 24.10)."""

_PYTHON = b'backend: "python"'


def check_space(bundle: Bundle, running: Bundle | None, state: Path) -> None:
    """Checks that there is space on this machine for what a bundle adds to the running one.

    Args:
        bundle: Bundle of the new plan.
        running: Bundle that serves, whose models need no more space; None if none does.
        state: State folder of the deployment.

    Raises:
        InputError: The file system of the state folder or the shared memory is too small.
    """
    here = [name for name, worker in bundle.workers.items() if not worker.remote]
    started = [name for name in here if running is None or name not in running.workers]
    models = _added(bundle, running)
    need = _SERVER_BYTES * len(started) + sum(_disk_bytes(folder) for folder in _folders(bundle, models))
    _require(
        need,
        f"the models and logs of this plan need {readable(need)} of disk",
        state,
        "free some space, or choose another folder with --state",
    )
    processes = sum(m.instances for m in models if _PYTHON in _config(m.folder))
    need = _PROCESS_BYTES * processes
    _require(
        need,
        f"the {processes} new processes of Python models need {readable(need)} of shared memory",
        SHM,
        "in a container: docker run --shm-size=4g; elsewhere: mount -o remount,size=4g /dev/shm",
    )


def _added(bundle: Bundle, running: Bundle | None) -> list[WorkerModel]:
    """Returns the models that workers of this machine do not have yet, with those that stand by."""

    def models(made: Bundle) -> Iterator[tuple[str, WorkerModel]]:
        here = [worker for worker in made.workers.values() if not worker.remote]
        yield from ((w.name, m) for w in here for m in (*w.models, *w.standby))

    present = {(name, m.name) for name, m in models(running)} if running is not None else set()
    return [m for name, m in models(bundle) if (name, m.name) not in present]


def _folders(bundle: Bundle, models: list[WorkerModel]) -> Iterator[ModelFolder]:
    yield from (model.folder for model in models)
    for graph in bundle.graphs.values():
        yield from (*graph.models, graph.front)


def _disk_bytes(folder: ModelFolder) -> int:
    """Returns the bytes that a model folder takes on disk. The links to copies of the user's files take none."""
    sizes = (len(content) for content in folder.files.values() if isinstance(content, bytes))
    return sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in sizes)


def _config(folder: ModelFolder) -> bytes:
    config = folder.files.get("config.pbtxt", b"")
    return config if isinstance(config, bytes) else b""


def _require(need: int, sentence: str, folder: Path, hint: str) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(f"{sentence}, but {readable(free)} are free", where=str(folder), hint=hint)
