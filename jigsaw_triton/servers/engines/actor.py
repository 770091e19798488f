"""The actor that keeps the agent of a node running. Ray restarts the actor wherever the node's resource is.

The agent is no child of the actor: it outlives the actor and the raylet, so that the loss of Ray costs neither requests
nor commands. A restarted actor replaces the agent, which gives it the release that is installed now.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PROGRAM = "jigsaw_triton.cli.main"
_START_S = 180.0
_FIRST_DELAY_S, _MAX_DELAY_S = 0.2, 30.0
_STABLE_S = 60.0
"""Seconds that an agent must run for the backoff to start over."""


class AgentKeeper:
    """Starts the agent of this machine, and starts it again whenever it ends.

    Args:
        node: Name of the node.
        host: Address to listen on; empty for the one that Ray has of this machine.
        port: Port to listen on.
        state: Folder of the state; empty for one in the user's home folder.
        files: Name of each file of the node's certificates -> its text.
        program: Command line of jigsaw-triton; None for that of this Python.
        environment: Environment of the agent; None for what the raylet has, the parent of this process.
    """

    def __init__(
        self,
        node: str,
        host: str,
        port: int,
        state: str,
        files: Mapping[str, str],
        program: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program or (sys.executable, "-P", "-m", _PROGRAM)
        if environment is None:
            environment = _environment_of(os.getppid())
            _be_like(os.getppid())
        self._environment = dict(environment)
        self._state = Path(state) / node if state else _home(self._environment) / "jigsaw-triton-agents" / node
        host = host or _ray_address()
        self._listen = f"{f'[{host}]' if ':' in host else host}:{port}"
        self._node = node
        self._files = dict(files)
        self._pid = 0
        self._error = ""
        self._changed = threading.Condition()
        threading.Thread(target=self._keep, name="agent", daemon=True).start()

    def report(self, wait_s: float) -> str:
        """Waits until the agent listens or has failed to start. Returns the reason for that; empty if it listens."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._pid or self._error, wait_s):
                return f"the agent has not started within {wait_s:g} s"
            return "" if self._pid else self._error

    def _keep(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            began_s = time.monotonic()
            try:
                self._start()
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                self._tell(error=f"{type(error).__name__}: {error}")
            if self._pid:
                _wait_end(self._pid)
                self._tell()
            delay_s = _FIRST_DELAY_S if time.monotonic() - began_s > _STABLE_S else min(2 * delay_s, _MAX_DELAY_S)
            time.sleep(delay_s)

    def _start(self) -> None:
        """Starts the agent in place of one that runs, and waits until it listens."""
        certificates = self._state / "certificates"
        certificates.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in self._files.items():
            fresh = certificates / f".{name}"
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            fresh.replace(certificates / name)
        where = ("--listen", self._listen, "--certificates", str(certificates), "--state", str(self._state))
        done = subprocess.run(
            [*self._program, "agent", "--name", self._node, *where, "--detach", "--replace", "-o", "json"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=False,
        )
        if done.returncode == 0:
            self._tell(pid=json.loads(done.stdout)["pid"])
        else:
            self._tell(error=done.stderr.strip() or f"the agent ended with status {done.returncode}")

    def _tell(self, *, pid: int = 0, error: str = "") -> None:
        with self._changed:
            self._pid, self._error = pid, error
            self._changed.notify_all()


def _wait_end(pid: int) -> None:
    """Waits until a process has ended, which need not be a child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
    finally:
        os.close(handle)


def _ray_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _environment_of(raylet: int) -> dict[str, str]:
    """Returns the environment of the raylet without the variables of Ray.

    Ray changes that of its actors: without GPUs of Ray it hides all GPUs (CUDA_VISIBLE_DEVICES), and without processors
    of Ray it has libraries use one thread (OMP_NUM_THREADS). Its token must not reach the models.
    """
    pairs = Path(f"/proc/{raylet}/environ").read_text(errors="surrogateescape").split("\0")
    found = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {name: text for name, text in found.items() if not name.startswith("RAY_")}


def _be_like(raylet: int) -> None:
    """Gives this process, and so the servers, the raylet's priorities.

    Ray has the kernel kill its actors first when memory runs out, and lets every other process run before them.
    """
    score = Path(f"/proc/{raylet}/oom_score_adj").read_text()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(score)
    # Only root may raise the priority again. Other users start raylets with RAY_worker_niceness=0.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, raylet))


def _home(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_STATE_HOME")
    return Path(base) if base else Path.home() / ".local" / "state"
