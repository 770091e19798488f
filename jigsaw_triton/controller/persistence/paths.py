"""Paths of a deployment's files."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.command import check_plain, is_plain

_ROOM_BYTES = 2**16
"""Free space in bytes that a folder must have for a start to be worth trying."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files and folders of one deployment.

    Attributes:
        state: Folder of what outlives a restart: journal, repositories, logs.
        run: Folder of what does not: sockets, routes, slots. Its path is short, since a socket's path has at most
            107 bytes.
    """

    state: Path
    run: Path

    @property
    def journal(self) -> Path:
        """SQLite file of the journal."""
        return self.state / "journal.sqlite"

    @property
    def lock(self) -> Path:
        """Lock file that the controller holds as long as it lives."""
        return self.state / "controller.lock"

    @property
    def supervisor_lock(self) -> Path:
        """File that the controller's supervisor holds a lock on as long as it lives."""
        return self.state / "supervisor.lock"

    @property
    def load(self) -> Path:
        """File of the last hour of the load."""
        return self.state / "load.jsonl"

    @property
    def console_socket(self) -> Path:
        """Unix socket on which the web console answers the command line. It outlives the deployment's run folder."""
        return self.run.with_name(f"{self.run.name}.console")

    @property
    def secret(self) -> Path:
        """Secret that the protocols which change servers ask for. It lasts as long as the servers."""
        return self.state / "secret"

    @property
    def control_socket(self) -> Path:
        """Unix socket of the controller's status API."""
        return self.run / "controller.sock"

    @property
    def agent_socket(self) -> Path:
        """Unix socket of the agent whose folder this is."""
        return self.run / "agent.sock"

    @property
    def logs(self) -> Path:
        """Folder with a log file for each server and for the controller."""
        return self.state / "logs"

    def log(self, name: str) -> Path:
        """Returns the log file of a worker, of the gateway, the edge or the controller."""
        return self.logs / f"{name}.log"

    @property
    def contents(self) -> Path:
        """Folder of the copies of deployed files or, for an agent, of the files that it has got."""
        return self.state / "contents"

    @property
    def repositories(self) -> Path:
        """Folder of the model repositories of the gateway and the workers."""
        return self.state / "repositories"

    def plain(self, repository: Path) -> Path:
        """Returns a path of a model repository that Triton can use, whatever characters are in the state folder's."""
        return self._repository_link / repository.relative_to(self.repositories)

    @property
    def _repository_link(self) -> Path:
        return self.run / self.repositories.name

    @property
    def gateway_repository(self) -> Path:
        """Model repository of the gateway."""
        return self.repositories / "gateway"

    def worker_repository(self, worker: str) -> Path:
        """Returns the model repository of a worker."""
        return self.repositories / "workers" / worker

    def worker_socket(self, worker: str) -> Path:
        """Returns the Unix socket of a worker."""
        return self.run / "workers" / f"{worker}.sock"

    def worker_slots(self, worker: str) -> Path:
        """Returns the folder with the slot files of a worker."""
        return self.run / "slots" / worker

    def slots(self, worker: str, model: str) -> Path:
        """Returns the slot file of a model on a worker."""
        return self.worker_slots(worker) / model

    def task(self, route: str) -> Path:
        """Returns the file that each front at the gateway locks while it uses a route."""
        return self.run / "tasks" / route

    def generation(self, graph: str, generation: int) -> Path:
        """Returns the file that the gateway locks while it has requests of a graph that are bound to a generation."""
        return self.generations / f"{graph}.{generation}"

    @property
    def generations(self) -> Path:
        """Folder with a file for each graph and generation."""
        return self.run / "generations"

    @property
    def epoch(self) -> Path:
        """File in which the gateway keeps the highest epoch of the routes that it has read."""
        return self.run / "epoch"

    @property
    def condemned(self) -> Path:
        """Folder with a file for each worker that the gateway has permanently taken out of service."""
        return self.run / "condemned"

    def mps(self, place: str) -> Path:
        """Returns the pipe directory of a MIG instance's MPS daemon."""
        return self.run / "mps" / place

    def mps_logs(self, place: str) -> Path:
        """Returns the log directory of a MIG instance's MPS daemon."""
        return self.logs / f"{place}.mps"

    def servers(self) -> frozenset[str]:
        """Returns the names of the servers that have a repository: all that run, and those that have died."""
        found = {path.name for path in (self.repositories / "workers").glob("*")}
        return frozenset({*found, self.gateway_repository.name} if self.gateway_repository.exists() else found)

    def create(self) -> None:
        """Creates the folders, which only their owner can read.

        Raises:
            InputError: A folder cannot be created, written or used by Triton, or is open to other users.
        """
        check_plain(self._repository_link)
        for folder in (self.state, self.logs, self.contents, self.repositories, self.gateway_repository):
            _writable(folder)
        for folder in (self.run.parent, self.run):
            _private(folder)
        _writable(self.run / "workers")
        with suppress(FileExistsError):
            self._repository_link.symlink_to(self.repositories)


def _writable(folder: Path) -> None:
    """Creates a folder if it is missing, and checks that it has free space.

    Raises:
        InputError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A full disk may still have room for a folder, but not for a file.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as error:
        raise InputError(
            f"the folder cannot be written ({error.strerror})",
            where=str(folder),
            hint="choose another folder with --state or JIGSAW_STATE",
        ) from error


def _private(folder: Path) -> None:
    """Creates a folder that only its owner can open, or checks that an existing one is private.

    The check matters because other users may write to the parent folder.

    Raises:
        InputError: The folder cannot be created, is a link, belongs to another user, or is open to others.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise InputError(
            f"the folder cannot be created ({error.strerror})", where=str(folder), hint="remove the file in its place"
        ) from error
    private = status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
    if not stat.S_ISDIR(status.st_mode) or not private:
        raise InputError("the folder is open to other users", where=str(folder), hint="remove the folder")


def deployment_paths(state: Path | None) -> Paths:
    """Returns the paths of the deployment with this state folder, which are the same for each spelling of its path.

    Args:
        state: State folder; None for the user's default, `$XDG_STATE_HOME/jigsaw-triton`.
    """
    if state is None:
        base = os.environ.get("XDG_STATE_HOME")
        state = (Path(base) if base else Path.home() / ".local" / "state") / "jigsaw-triton"
    state = state.resolve()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    name = hashlib.sha256(str(state).encode()).hexdigest()[:10]
    if runtime and is_plain(Path(runtime)) and Path(runtime).is_dir():
        return Paths(state, Path(runtime) / "jigsaw-triton" / name)
    return Paths(state, Path(f"/tmp/jigsaw-triton-{os.getuid()}") / name)
