"""A deployment as a user runs it: commands in processes of their own, and a state folder of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.controller.persistence.lock import wait_unlocked
from jigsaw_triton.servers.command import shm_prefix
from jigsaw_triton.servers.members import members
from jigsaw_triton.servers.metrics import parse_metrics
from jigsaw_triton.servers.os_process import start_time
from tests.e2e.commands import Result, commands
from tests.waiting import WAIT_LIMIT_S, eventually

COMMAND = (sys.executable, "-m", "jigsaw_triton.cli.main")

_POLL_S = 0.05
_PORTS = range(20_000, 32_000)
"""Ports below the kernel's ephemeral range, so that no connection takes the port of a server that restarts."""

_given: deque[int] = deque(maxlen=200)
"""Ports that were given to tests lately: some are not used yet."""

_WORKERS = 8
"""Number of workers of pytest-xdist among which the ports are divided, so that no two choose the same free port."""


class System:
    """A deployment.

    Args:
        state: State folder of the deployment.
        forks: True if `run` may use a fork of a process that has imported the command, which is faster than what a
            user does.
    """

    def __init__(self, state: Path, *, forks: bool = True) -> None:
        self.state = state
        self._forks = forks
        self.http, self.grpc, self.metrics = free_ports(3)
        self.ports = ("--http", str(self.http), "--grpc", str(self.grpc), "--metrics", str(self.metrics))
        self._deployment = Deployment(state)
        outside = {name: text for name, text in os.environ.items() if not name.startswith("JIGSAW_")}
        cache = {name: text for name, text in os.environ.items() if name == "JIGSAW_CACHE"}
        self._started: list[subprocess.Popen[str]] = []
        self._environment = {**outside, **cache, "JIGSAW_STATE": str(state)}

    def put_on_path(self, folder: Path) -> None:
        """Puts a folder at the front of PATH for the following commands."""
        self._environment["PATH"] = f"{folder}{os.pathsep}{self._environment['PATH']}"

    def set_variable(self, name: str, value: object) -> None:
        """Sets an environment variable for the following commands."""
        self._environment[name] = str(value)

    def set_environment(self, variables: Mapping[str, str]) -> None:
        """Sets environment variables for the following commands, and for the controller that they start."""
        self._environment |= variables

    def run(self, *arguments: object) -> Result:
        """Runs a command and waits for its end."""
        if self._forks:
            return commands(self._environment).run(list(map(str, arguments)), self._environment, WAIT_LIMIT_S)
        process = self.start(*arguments)
        out, err = process.communicate(timeout=WAIT_LIMIT_S)
        self._started.remove(process)
        return Result(process.returncode, out, err)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Starts a command in a new process group. `end` kills it if the test does not wait for it."""
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._started.append(process)
        return process

    def deploy(self, *arguments: object) -> dict[str, Any]:
        """Deploys or updates, and checks that it succeeds. Returns the status after it."""
        result = self.run("deploy", *arguments, *self.ports, "--detach", "-o", "json")
        assert result.code == 0, result.out + result.err
        return result.json

    def status(self) -> dict[str, Any]:
        """Returns the status directly from the controller, which is faster than the `status` command."""
        return self._deployment.status()

    def worker_of(self, task: str) -> dict[str, Any]:
        """Returns the status of a worker that executes a task."""
        return next(w for w in self.status()["workers"] if any(m["task"] == task for m in w["models"]))

    def metric(self, name: str, **labels: str) -> float:
        """Returns a metric of the gateway, summed over all samples with these labels."""
        with urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=WAIT_LIMIT_S) as answer:
            samples = parse_metrics(answer.read().decode())
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def wait_alike(self, *metrics: tuple[str, Mapping[str, str]]) -> float:
        """Waits until metrics have equal values and returns the value. Metrics lag by up to a second.

        Args:
            metrics: Name and labels of each metric.
        """
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while len(set(values := [self.metric(name, **labels) for name, labels in metrics])) > 1:
            assert time.monotonic() < give_up_at, f"{metrics} are {values}"
            time.sleep(_POLL_S)
        return values[0]

    def last_event(self) -> int:
        """Returns the number of the last event."""
        return self._deployment.last_event()

    def wait_event(self, text: str, *, after: int = 0) -> int:
        """Waits for an event that contains a text in `kind: text`. Returns the number of the event."""
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        seen: list[str] = []
        while time.monotonic() < give_up_at:
            answer = self._deployment.client.events(after, wait_s=5.0)
            for event in answer["events"]:
                seen.append(f"{event['kind']}: {event['text']}")
                after = event["id"]
                if text in seen[-1]:
                    return after
        raise AssertionError(f"no event says '{text}'; there were {seen}")

    def events(self, *, after: int = 0) -> list[str]:
        """Returns each event as `kind: text`."""
        return [f"{event.kind}: {event.text}" for event in self._deployment.events(after=after)]

    def wait_started(self) -> None:
        """Waits until the controller answers."""
        eventually(lambda: self._deployment.running)

    def wait_gone(self) -> None:
        """Waits until all processes of the deployment have ended."""
        eventually(lambda: not self._processes(), self._processes)

    def supervisor_pid(self) -> int:
        """Process id of the controller's supervisor."""
        (supervisor,) = (pid for pid, line in self._processes().items() if "jigsaw_triton.api.supervisor" in line)
        return supervisor

    def wait_controller_gone(self) -> None:
        """Waits until neither the controller nor its supervisor runs."""
        eventually(lambda: not any("jigsaw_triton.api." in line for line in self._processes().values()))

    def kill_controller(self) -> None:
        """Kills the controller and its supervisor, so that nobody starts it again; the servers go on."""
        for pid in (self.supervisor_pid(), self.controller_pid()):
            os.kill(pid, signal.SIGKILL)
        assert wait_unlocked(self._deployment.paths.lock, WAIT_LIMIT_S)

    def kill_all(self) -> None:
        """Kills all processes of the controller's machine at once, as a power failure does."""
        for pid in self._signal_all(signal.SIGKILL):
            self.wait_ended(pid)

    def freeze(self) -> None:
        """Stops all processes of the controller's machine, as if it were cut off from everybody."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets the processes of the controller's machine go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> set[int]:
        """Sends a signal to all processes of the controller's machine, and returns their ids."""
        supervisor = self.supervisor_pid()
        pids = {member.pid for member in members(self.state)}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if os.getsid(int(folder.name)) == supervisor:
                    pids.add(int(folder.name))
        # The supervisor is first, because it starts another controller when its controller ends.
        for pid in (supervisor, *pids - {supervisor}):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def wait_ended(self, pid: int) -> None:
        """Waits until a process has ended."""
        eventually(lambda: start_time(pid) is None, lambda: f"{pid} still runs")

    def lose_locks(self) -> None:
        """Deletes the locks and the socket of the controller, so that the next one takes the present one for dead."""
        paths = self._deployment.paths
        for path in (paths.lock, paths.supervisor_lock, paths.control_socket):
            path.unlink()

    def lose_journal(self) -> None:
        """Deletes the journal."""
        for path in self.state.glob("journal.sqlite*"):
            path.unlink()

    def controller_pid(self) -> int:
        """Returns the process id of the controller."""
        # The id is read from the lock, since the supervisor's standby process has the same command line.
        return int(self._deployment.paths.lock.read_text())

    @property
    def run_dir(self) -> Path:
        """Run directory of the deployment."""
        return self._deployment.paths.run

    def routes(self, kind: str) -> set[str]:
        """Returns the names of routes with a file in `routes` or `tasks`, two folders of the run directory."""
        return {path.name.removesuffix(".json") for path in (self._deployment.paths.run / kind).iterdir()}

    def slot_files(self) -> set[tuple[str, str]]:
        """Returns the worker and the model of each slot file."""
        slots = self._deployment.paths.run / "slots"
        return {(path.parent.name, path.name) for path in slots.glob("*/*")}

    def regions(self) -> list[Path]:
        """Returns the regions in shared memory of all servers that have run."""
        names = {path.stem for path in (self.state / "logs").glob("*.log")}
        prefixes = tuple(shm_prefix(self._deployment.paths.run, name) for name in names)
        return [path for path in Path("/dev/shm").iterdir() if path.name.startswith(prefixes)]

    def orphans(self) -> list[str]:
        """Returns what the deployment should not leave behind: processes, regions, MIG instances, run directory."""
        mig = self.state / "mig.json"
        instances = json.loads(mig.read_text())["instances"] if mig.exists() else []
        run = [str(self._deployment.paths.run)] if self._deployment.paths.run.exists() else []
        return [*self._processes().values(), *map(str, self.regions()), *map(str, instances), *run]

    def end(self) -> None:
        """Takes the deployment down and checks that it leaves nothing behind."""
        for process in self._started:
            process.kill()
            process.communicate()
        result = self.run("down")
        try:
            assert result.code in (0, 4), result.err
            left = self.orphans()
            assert left == [], f"left: {left}"
        finally:
            for pid in self._processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _processes(self) -> dict[int, str]:
        """Returns the command lines by id of the processes that refer to the state folder or the run directory."""
        run = f"{self._deployment.paths.run}/"
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if (
                f"{self.state}/" in line
                or run in line
                or f"jigsaw_triton.api.daemon {self.state}" in line
                or f"jigsaw_triton.api.supervisor {self.state}" in line
            ):
                found[int(folder.name)] = line
        return found


def free_ports(count: int) -> list[int]:
    """Returns ports on which no process listens, from the share of this worker of pytest-xdist."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _PORTS[worker % _WORKERS :: _WORKERS]
    ports: list[int] = []
    for port in random.sample(own, len(own)):
        if port in _given:
            continue
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            _given.extend(ports)
            return ports
    raise AssertionError("no port is free")
