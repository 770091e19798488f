"""Runs MPS daemons, through which several processes compute concurrently on one GPU or MIG instance.

According to NVIDIA's MIG user guide, each instance has a control daemon of its own, which is identified by its pipe
directory, and daemon and clients select the instance by its UUID. A process that finds no daemon in its pipe directory
silently computes without MPS. Only the daemon's list of clients shows if a process uses it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.errors import MissingDependencyError, ServerError
from jigsaw_triton.servers.logfile import with_log
from jigsaw_triton.servers.os_process import OsProcess, start_time

CONTROL = "nvidia-cuda-mps-control"

_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_OUTPUT = "output.log"
_PID_FILE = f"{CONTROL}.pid"
"""File in the pipe directory to which the daemon writes its process id."""

_POLL_S = 0.05
_START_S = 10.0
_ANSWER_S = 10.0
_QUIT_S = 5.0
_GONE_S = 5.0


def find_control() -> Path:
    """Finds the program that runs the daemon and sends commands to it.

    Raises:
        MissingDependencyError: The program is not on PATH.
    """
    if found := shutil.which(CONTROL):
        return Path(found)
    raise MissingDependencyError(
        f"`processes: mps` needs {CONTROL}, which is not on PATH",
        hint="it comes with NVIDIA's driver (Debian, Ubuntu: package nvidia-compute-utils-<version>); in a container, "
        "set NVIDIA_DRIVER_CAPABILITIES=compute,utility; or write `processes: streams` in cluster.yaml",
    )


def mps_environment(pipes: Path, logs: Path) -> Mapping[str, str]:
    """Returns the environment variables for clients of the daemon that uses these folders."""
    return {_PIPES: str(pipes), _LOGS: str(logs)}


def daemon_environment(device: str, pipes: Path, logs: Path) -> Mapping[str, str]:
    """Returns the environment variables for the daemon of the instance with this UUID."""
    return {**mps_environment(pipes, logs), "CUDA_VISIBLE_DEVICES": device}


def daemon_argv(control: Path) -> tuple[str, ...]:
    """Returns the daemon's command line, in the foreground so that it stays a child that can be watched."""
    return str(control), "-f"


def why_without(own: Collection[int], holders: Collection[int], clients: Collection[int]) -> str | None:
    """Returns the reason why a server does not, or not completely, compute through a daemon; None if it does.

    Args:
        own: Ids of the server's processes.
        holders: Ids of all processes on the instance, of any owner, as far as they are known.
        clients: Ids of the daemon's clients.
    """
    outside = (set(own) & set(holders)) - set(clients)
    if outside:
        return f"its processes {', '.join(map(str, sorted(outside)))} compute on the slice without MPS"
    if not set(own) & set(clients):
        return "none of its processes computes through the MPS daemon"
    return None


class MpsDaemon:
    """The control daemon of one GPU or MIG instance, together with the MPS server that it starts.

    Args:
        control: Program that `find_control` returned.
        device: UUID of the instance.
        pipes: Pipe directory of this daemon alone, which it creates, and removes at the end.
        logs: Log directory, which it creates.
        marks: Environment variables that show whose daemon it is.
        survives: True if the daemon outlives this process. Otherwise it gets SIGTERM when the thread that started it
            ends: call `start` in the main thread then.
    """

    def __init__(
        self,
        control: Path,
        device: str,
        pipes: Path,
        logs: Path,
        *,
        marks: Mapping[str, str] = MappingProxyType({}),
        survives: bool = False,
    ) -> None:
        self._control = control
        self._device = device
        self._pipes = pipes
        self._logs = logs
        self._marks = marks
        self._survives = survives
        self._process: OsProcess | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables for its clients."""
        return mps_environment(self._pipes, self._logs)

    @property
    def runs(self) -> bool:
        """True if the daemon was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def answers(self) -> bool:
        """Returns True if the daemon runs and executes commands; one that hangs accepts no new clients."""
        if self.runs:
            with contextlib.suppress(ServerError):
                await self._ask("get_server_list")
                return True
        return False

    def find(self) -> None:
        """Takes over the daemon of this pipe directory, if an earlier controller left one running."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._pipes / _PID_FILE).read_text())
            # The file may be left from a daemon that has died, and its process id may be that of another process now.
            own = f"{_PIPES}={self._pipes}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if own and (started := start_time(pid)) is not None:
                self._process = OsProcess.find(pid, started)

    async def start(self) -> None:
        """Starts the daemon and waits until it answers. If that fails or is cancelled, removes all traces of it.

        Raises:
            ServerError: The daemon ended, or did not answer in time; the message includes the end of its output.
        """
        for folder in (self._pipes, self._logs):
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        try:
            self._spawn()
            await self._wait_ready()
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def wait(self) -> None:
        """Waits until the daemon ends."""
        if self._process is not None:
            await self._process.wait()

    async def clients(self) -> frozenset[int]:
        """Returns the ids of the processes that compute through the daemon.

        Raises:
            ServerError: The daemon does not answer.
        """
        servers = await self._numbers("get_server_list")
        found = [await self._numbers(f"get_client_list {server}") for server in servers]
        return frozenset(client for clients in found for client in clients)

    async def stop(self) -> None:
        """Ends the daemon and its server, whose clients must have ended. May be called repeatedly."""
        if self.runs:
            with contextlib.suppress(ServerError, TimeoutError):
                async with asyncio.timeout(_QUIT_S):
                    await self._ask("quit")
                    await self.wait()
        await asyncio.to_thread(end_processes, self._pipes)
        await self.wait()
        await asyncio.to_thread(shutil.rmtree, self._pipes, True)

    def _spawn(self) -> None:
        output = os.open(self._logs / _OUTPUT, os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = OsProcess.spawn(
                daemon_argv(self._control),
                output=output,
                env={**os.environ, **daemon_environment(self._device, self._pipes, self._logs), **self._marks},
                survives=self._survives,
            )
        finally:
            os.close(output)

    async def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + _START_S
        while True:
            if not self.runs:
                raise self._failure("the MPS daemon ended before it answered")
            if await self.answers():
                return
            if time.monotonic() > give_up_at:
                raise self._failure(f"the MPS daemon has not answered within {_START_S:g} s")
            await asyncio.sleep(_POLL_S)

    def _failure(self, message: str) -> ServerError:
        message = with_log(message, self._logs / _OUTPUT)
        return ServerError(message, where=self._device, hint=f"see the logs in {self._logs}")

    async def _numbers(self, command: str) -> list[int]:
        """Sends a command and returns the ids in its answer, which has one per line."""
        return [int(word) for word in (await self._ask(command)).split() if word.isdigit()]

    async def _ask(self, command: str) -> str:
        """Sends a command to the daemon and returns its answer.

        Raises:
            ServerError: The daemon does not answer, or refuses the command.
        """
        try:
            asking = await asyncio.create_subprocess_exec(
                str(self._control),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self.env},
            )
        except OSError as error:
            # The program may have been removed together with the driver, as in an upgrade.
            raise ServerError(f"`{command}` cannot be sent to the MPS daemon: {error}", where=self._device) from error
        try:
            answer, _ = await asyncio.wait_for(asking.communicate(f"{command}\n".encode()), _ANSWER_S)
        except TimeoutError:
            raise ServerError(f"the MPS daemon has not answered `{command}`", where=self._device) from None
        finally:
            if asking.returncode is None:
                asking.kill()
                await asking.wait()
        text = answer.decode(errors="replace")
        if asking.returncode != 0:
            raise ServerError(f"the MPS daemon refused `{command}`: {text.strip()}", where=self._device)
        return text


def end_processes(pipes: Path) -> int:
    """Kills the daemon, server and clients that have this pipe directory in their environment. Blocks until they end.

    Returns:
        Number of the processes.

    Raises:
        ServerError: A process does not end.
    """
    wanted = f"{_PIPES}={pipes}".encode()
    found = _with_variable(wanted)
    deadline = time.monotonic() + _GONE_S
    left = found
    while left:
        if time.monotonic() > deadline:
            raise ServerError(f"processes {', '.join(map(str, left))} did not end after SIGKILL")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
        left = _with_variable(wanted)
    return len(found)


def _with_variable(wanted: bytes) -> list[int]:
    """Returns the ids of the running processes that have this environment variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            # The process has ended or belongs to another user.
            continue
    return found
