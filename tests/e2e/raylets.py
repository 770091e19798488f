"""A Ray cluster on this machine: processes that `ray start` has started, which all end with it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.e2e.system import System, free_ports
from tests.waiting import WAIT_LIMIT_S

_MARK = "TEST_OF_JIGSAW"
"""Environment variable that all processes of a cluster have, and whatever they start."""

_SETTINGS = {
    # With these health checks Ray notices a lost raylet within seconds, and then starts its actors elsewhere.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_worker_niceness": "0",
}
_LEAN = ("--disable-usage-stats", "--include-log-monitor=false")
"""Options without which each raylet starts a process that copies the logs of all of them to Ray's control store."""

_STARTED = "Ray runtime started"
_POLL_S = 0.05


class Raylets:
    """A cluster whose raylets offer one node each. The first one has the control store (GCS).

    Args:
        folder: Folder for Ray's files and for the state of the nodes. Its path is short, because of Ray's sockets.
        nodes: Names of the nodes.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...]) -> None:
        self._folder = folder
        self._nodes = nodes
        self._mark = secrets.token_hex(8)
        self._port, *agents = free_ports(1 + len(nodes))
        self._agents = dict(zip(nodes, agents, strict=True))
        outside = {name: text for name, text in os.environ.items() if not name.startswith(("JIGSAW_", "RAY_"))}
        cache = {name: text for name, text in os.environ.items() if name == "JIGSAW_CACHE"}
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._environment = {**outside, **cache, **_SETTINGS, **self.token, _MARK: self._mark}
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Address of the cluster."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts all raylets."""
        head, *others = self._nodes
        # Without a monitor, there is no autoscaler.
        self._start(head, "--head", f"--port={self._port}", "--include-dashboard=false", "--no-monitor")
        # Some raylets do not register if they start at the same time on one machine.
        for node in others:
            self._start(node, f"--address={self.address}")

    def _start(self, node: str, *arguments: str) -> None:
        """Starts a raylet and waits until it runs. Ray itself gives up after 30 s, which a busy machine may need."""
        log, give_up_at = self._folder / f"{node}.log", time.monotonic() + WAIT_LIMIT_S
        while True:
            self._started[node] = starter = self._begin(node, log, arguments)
            while starter.poll() is None:
                if _STARTED in (text := log.read_text()):
                    return
                assert time.monotonic() < give_up_at, text
                time.sleep(_POLL_S)
            assert time.monotonic() < give_up_at, log.read_text()

    def _begin(self, node: str, log: Path, arguments: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        resources = json.dumps({f"node:{node}": 1})
        none = ("--num-cpus=0", "--num-gpus=0", "--object-store-memory=80000000")
        with log.open("wb") as sink:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *_LEAN),
                    *("--node-ip-address=127.0.0.1", f"--resources={resources}", *none, *arguments),
                ],
                env={**self._environment, "RAY_TMPDIR": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def kill(self, *nodes: str) -> None:
        """Kills all processes of Ray on nodes. The agents and their workers go on."""
        for node in nodes:
            starter = self._started[node]
            for pid in (starter.pid, *_descendants(starter.pid)):
                _kill(pid)
            starter.wait(WAIT_LIMIT_S)

    def kill_gcs(self) -> None:
        """Kills Ray's control store."""
        head = self._started[self._nodes[0]].pid
        (pid,) = [one for one in _descendants(head) if "gcs_server" in _command(one)[0]]
        _kill(pid)

    def agents(self) -> dict[str, int]:
        """Returns the process id of the agent of each node that has one."""
        found = {}
        for pid, line in self._processes().items():
            if (
                "agent" in line
                and "--detach" not in line
                and (rest := line[line.index("agent") + 1 :])[:1] == ["--name"]
            ):
                found[rest[1]] = pid
        return found

    def agent(self, node: str) -> int | None:
        """Returns the process id of the agent of a node; None if there is none."""
        return self.agents().get(node)

    def actor(self, node: str) -> int | None:
        """Returns the process id of the actor on a node; None if there is none."""
        for pid in _descendants(self._started[node].pid):
            if "ray::AgentKeeper" in " ".join(_command(pid)):
                return pid
        return None

    def workers(self) -> set[int]:
        """Returns the process ids of the tritonservers of all nodes."""
        return {pid for pid, line in self._processes().items() if line[0].endswith("tritonserver")}

    def processes(self) -> set[int]:
        """Returns the process ids of everything that the raylets have started and that is not of Ray."""
        ray = {one for starter in self._started.values() for one in (starter.pid, *_descendants(starter.pid))}
        return self._processes().keys() - ray

    def _processes(self) -> dict[int, list[str]]:
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{_MARK}={self._mark}\0".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = _command(int(process.name))
        return found

    def end(self) -> None:
        """Kills all processes of the cluster, and whatever they have started."""
        self.kill(*self._started)
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while left := self._processes():
            for pid in left:
                _kill(pid)
            assert time.monotonic() < give_up_at, left
            time.sleep(_POLL_S)

    def cluster(self, system: System, gpus: str = "{model: cpu, count: 1}", *, extra: str = "") -> Path:
        """Writes the cluster.yaml for a deployment, which gets Ray's token.

        Args:
            system: Deployment, whose ports the gateway gets.
            gpus: GPUs of each node.
            extra: Another line of its specification.
        """
        system.set_environment(self.token)
        nodes = "\n".join(
            f'    - {{name: {node}, agent: "127.0.0.1:{port}", gpus: [{gpus}]}}' for node, port in self._agents.items()
        )
        file = self._folder / "cluster.yaml"
        file.write_text(
            "apiVersion: jigsaw-triton/v1\n"
            "kind: Cluster\n"
            "spec:\n"
            "  driver: emulated\n"
            "  engine: ray\n"
            f"  ray: {{address: '{self.address}', state: {self._folder}/state}}\n"
            f"  gateway: {{http: {system.http}, grpc: {system.grpc}, metrics: {system.metrics}}}\n"
            f"  nodes:\n{nodes}\n" + (f"  {extra}\n" if extra else "")
        )
        return file


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Returns the children of a process, and theirs."""
    children = [int(text) for task in Path(f"/proc/{pid}/task").glob("*") for text in _children(task)]
    return [one for child in children for one in (child, *_descendants(child))]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


def _command(pid: int) -> list[str]:
    """Returns the command line of a process; empty texts if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]
