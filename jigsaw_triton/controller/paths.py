"""Where a deployment keeps its files."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.command import check_plain

_ROOM_BYTES = 2**16
"""What a folder must have room for, so that starting is worth trying."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders of one deployment.

    Attributes:
        state: What outlives a restart: journal, repositories, logs.
        run: What does not: sockets, routes, slots. Short, because a socket's path is limited to 107 bytes.
    """

    state: Path
    run: Path

    @property
    def journal(self) -> Path:
        """SQLite file."""
        return self.state / "journal.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the controller as long as it lives."""
        return self.state / "controller.lock"

    @property
    def supervisor_lock(self) -> Path:
        """File that the controller's supervisor holds a lock on as long as it lives."""
        return self.state / "supervisor.lock"

    @property
    def secret(self) -> Path:
        """Secret that the protocols which change servers ask for. It lasts as long as the servers."""
        return self.state / "secret"

    @property
    def control_socket(self) -> Path:
        """Of the status interface."""
        return self.run / "controller.sock"

    @property
    def logs(self) -> Path:
        """One file a server, and the controller's own."""
        return self.state / "logs"

    def log(self, name: str) -> Path:
        """Log file of a worker, of `gateway` or of `controller`."""
        return self.logs / f"{name}.log"

    @property
    def repositories(self) -> Path:
        """Model repositories of the gateway and the workers."""
        return self.state / "repositories"

    @property
    def gateway_repository(self) -> Path:
        """Model repository of the gateway."""
        return self.repositories / "gateway"

    def worker_repository(self, worker: str) -> Path:
        """Model repository of a worker."""
        return self.repositories / "workers" / worker

    def worker_socket(self, worker: str) -> Path:
        """Unix socket of a worker."""
        return self.run / "workers" / f"{worker}.sock"

    def worker_slots(self, worker: str) -> Path:
        """Slot files of a worker."""
        return self.run / "slots" / worker

    def slots(self, worker: str, model: str) -> Path:
        """Slot file of a model on a worker."""
        return self.worker_slots(worker) / model

    def task(self, route: str) -> Path:
        """File that each front at the gateway holds a lock on that uses a route."""
        return self.run / "tasks" / route

    @property
    def condemned(self) -> Path:
        """Folder with a file for each worker that the gateway has taken out of service for good."""
        return self.run / "condemned"

    def mps(self, place: str) -> Path:
        """Pipe directory of the MPS daemon of a MIG instance."""
        return self.run / "mps" / place

    def mps_logs(self, place: str) -> Path:
        """Log directory of the same."""
        return self.logs / f"{place}.mps"

    def create(self) -> None:
        """Makes the folders, readable by their owner alone.

        Raises:
            InputError: A folder can't be made, written or used by Triton, or belongs to somebody else.
        """
        check_plain(self.repositories)
        for folder in (self.state, self.logs, self.gateway_repository):
            _writable(folder)
        for folder in (self.run.parent, self.run):
            _private(folder)
        _writable(self.run / "workers")


def _writable(folder: Path) -> None:
    """Makes a folder, or sees to it that there is room in it.

    Raises:
        InputError: It can't be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder can be made where there is no room left for a file.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as error:
        raise InputError(
            f"the folder cannot be written ({error.strerror})",
            where=str(folder),
            hint="choose another with --state or JIGSAW_STATE",
        ) from error


def _private(folder: Path) -> None:
    """Makes a folder that its owner alone can open, or sees to it that it is one: others may write beside it.

    Raises:
        InputError: It cannot be made, is a link, belongs to somebody else, or is open to others.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise InputError(
            f"the folder cannot be made ({error.strerror})", where=str(folder), hint="remove what stands there"
        ) from error
    private = status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
    if not stat.S_ISDIR(status.st_mode) or not private:
        raise InputError("the folder is open to other users", where=str(folder), hint="remove it")


def deployment_paths(state: Path | None) -> Paths:
    """The folders of the deployment that has its state in `state`.

    Args:
        state: None for the user's own, `$XDG_STATE_HOME/jigsaw-triton`.
    """
    if state is None:
        base = os.environ.get("XDG_STATE_HOME")
        state = (Path(base) if base else Path.home() / ".local" / "state") / "jigsaw-triton"
    state = state.absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    name = hashlib.sha256(str(state).encode()).hexdigest()[:10]
    if runtime and Path(runtime).is_dir():
        return Paths(state, Path(runtime) / "jigsaw-triton" / name)
    return Paths(state, Path(f"/tmp/jigsaw-triton-{os.getuid()}") / name)
