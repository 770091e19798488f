"""A deployment as a user runs it: the command line in processes of its own, state in a folder of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.servers.command import shm_prefix
from jigsaw_triton.servers.metrics import parse_metrics

COMMAND = (sys.executable, "-m", "jigsaw_triton.cli.main")
PATIENCE_S = 120.0
"""Nothing here takes so long; what does has failed."""

_POLL_S = 0.05
_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to connections: a client's end could take the port of a server that restarts."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended.

    Attributes:
        code: Exit code.
        out: What it wrote to stdout.
        err: What it wrote to stderr.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed under `-o json`."""
        document: dict[str, Any] = json.loads(self.out)
        return document


class System:
    """One deployment.

    Args:
        state: Its folder.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.http, self.grpc, self.metrics = free_ports(3)
        self.ports = ("--http", str(self.http), "--grpc", str(self.grpc), "--metrics", str(self.metrics))
        self._deployment = Deployment(state)
        outside = {name: text for name, text in os.environ.items() if not name.startswith("JIGSAW_")}
        cache = {name: text for name, text in os.environ.items() if name == "JIGSAW_CACHE"}
        self._started: list[subprocess.Popen[str]] = []
        self._environment = {**outside, **cache, "JIGSAW_STATE": str(state)}

    def put_on_path(self, folder: Path) -> None:
        """Has commands find the programs of a folder before others."""
        self._environment["PATH"] = f"{folder}{os.pathsep}{self._environment['PATH']}"

    def run(self, *arguments: object) -> Result:
        """Runs a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        self._started.remove(process)
        return Result(process.returncode, out, err)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Starts a command, in a process group of its own; `end` sees to it where the test does not."""
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
        """Deploys or updates, and expects that to work; the status after it."""
        result = self.run("deploy", *arguments, *self.ports, "--detach", "-o", "json")
        assert result.code == 0, result.out + result.err
        return result.json

    def status(self) -> dict[str, Any]:
        """What `status -o json` prints, asked for directly: that is quicker than a process."""
        return self._deployment.status()

    def worker_of(self, task: str) -> dict[str, Any]:
        """A worker that does a task, as the status has it."""
        return next(w for w in self.status()["workers"] if any(m["task"] == task for m in w["models"]))

    def metric(self, name: str, **labels: str) -> float:
        """What the gateway's /metrics say, all lines with these labels added up."""
        with urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=PATIENCE_S) as answer:
            samples = parse_metrics(answer.read().decode())
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def wait_alike(self, *metrics: tuple[str, Mapping[str, str]]) -> float:
        """Waits until metrics, by name and labels, have one value, and returns it; they follow within a second."""
        give_up_at = time.monotonic() + PATIENCE_S
        while len(set(told := [self.metric(name, **labels) for name, labels in metrics])) > 1:
            assert time.monotonic() < give_up_at, f"{metrics} are {told}"
            time.sleep(_POLL_S)
        return told[0]

    def last_event(self) -> int:
        """Number of the last event so far."""
        return self._deployment.last_event()

    def wait_event(self, text: str, *, after: int = 0) -> int:
        """Waits until an event says so; its number."""
        give_up_at = time.monotonic() + PATIENCE_S
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
        """`kind: text` of each event."""
        return [f"{event.kind}: {event.text}" for event in self._deployment.events(after=after)]

    def wait_started(self) -> None:
        """Waits until the controller answers."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not self._deployment.running:
            assert time.monotonic() < give_up_at, "no controller answers"
            time.sleep(_POLL_S)

    def wait_gone(self) -> None:
        """Waits until no process of the deployment is left."""
        give_up_at = time.monotonic() + PATIENCE_S
        while processes := self._processes():
            assert time.monotonic() < give_up_at, processes
            time.sleep(_POLL_S)

    def controller_pid(self) -> int:
        """Process id of the controller."""
        pids = [pid for pid, line in self._processes().items() if "jigsaw_triton.api.daemon" in line]
        # What it starts has its command line until it runs its own.
        (controller,) = (pid for pid in pids if _parent(pid) not in (None, *pids))
        return controller

    @property
    def run_dir(self) -> Path:
        """Run directory of the deployment."""
        return self._deployment.paths.run

    def routes(self, kind: str) -> set[str]:
        """Names of routes with a file in a folder of the run directory: `routes`, or `tasks` that use one."""
        return {path.name.removesuffix(".json") for path in (self._deployment.paths.run / kind).iterdir()}

    def slot_files(self) -> set[tuple[str, str]]:
        """Worker and model of each file of slots."""
        slots = self._deployment.paths.run / "slots"
        return {(path.parent.name, path.name) for path in slots.glob("*/*")}

    def orphans(self) -> list[str]:
        """What is there of the deployment that is not meant to outlive it."""
        names = {path.stem for path in (self.state / "logs").glob("*.log")}
        prefixes = tuple(shm_prefix(self._deployment.paths.run, name) for name in names)
        regions = [str(path) for path in Path("/dev/shm").iterdir() if path.name.startswith(prefixes)]
        mig = self.state / "mig.json"
        instances = json.loads(mig.read_text())["instances"] if mig.exists() else []
        run = [str(self._deployment.paths.run)] if self._deployment.paths.run.exists() else []
        return [*self._processes().values(), *regions, *map(str, instances), *run]

    def end(self) -> None:
        """Takes all down and sees to it that nothing is left."""
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
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> dict[int, str]:
        """Id and command line of every process that works in the state folder or in the run directory."""
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
                or line.rstrip().endswith(f"jigsaw_triton.api.daemon {self.state}")
            ):
                found[int(folder.name)] = line
        return found


def _parent(pid: int) -> int | None:
    """The process that started this one; None where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(status.partition("\nPPid:")[2].split()[0])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no port is free")
