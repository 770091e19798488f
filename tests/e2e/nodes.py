"""Machines with agents: processes on this machine that know of each other by their ports and certificates only."""

import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path

from jigsaw_triton.api.controller import end_orphans
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.members import leaders, members
from tests.e2e.commands import Running, commands
from tests.e2e.system import System, free_ports
from tests.waiting import WAIT_LIMIT_S, eventually

STANDBY_ADDRESS = "127.0.0.2"
"""Address of standby gateways: their machine is this one, and the gateway has its ports at 127.0.0.1."""


class Machine:
    """A machine with an agent.

    Args:
        name: Name of the node.
        folder: Folder with its certificates and its state.
        port: Port of the agent.
        environment: Environment variables of the agent.
    """

    def __init__(self, name: str, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.state = folder / f"state {name}"
        self._certificates = folder / "certificates" / name
        self._environment = environment
        self._agent: Running | None = None
        self._starts = 0

    def start(self) -> None:
        """Starts the agent."""
        self.state.mkdir(exist_ok=True)
        self._starts += 1
        options = {
            "--name": self.name,
            "--listen": f"127.0.0.1:{self.port}",
            "--certificates": self._certificates,
            "--state": self.state,
        }
        arguments = [str(text) for pair in options.items() for text in pair]
        with (self.state / "agent.log").open("ab") as log:
            forks = commands(self._environment)
            self._agent = forks.start(["agent", *arguments], self._environment, log.fileno(), log.fileno())

    def wait_listening(self) -> None:
        """Waits until the agent that was started last listens."""
        eventually(lambda: self.log().count("listens on") >= self._starts)

    def log(self) -> str:
        """Returns what the agent has printed."""
        return (self.state / "agent.log").read_text()

    @property
    def agent_pid(self) -> int:
        """Process id of the agent."""
        assert self._agent is not None
        return self._agent.pid

    def pids(self) -> set[int]:
        """Returns the ids of the processes of the machine without the agent: workers and proxy."""
        return {member.pid for member in members(self.state)}

    def servers(self) -> dict[str, int]:
        """Returns the workers of the machine: name -> id of the process."""
        return {name: m.pid for name, m in leaders(members(self.state)).items() if name != "node-transport"}

    def end_agent(self, number: int = signal.SIGKILL) -> None:
        """Ends the agent by a signal. Its workers go on."""
        assert self._agent is not None
        self._agent.send_signal(number)
        self._agent.wait(WAIT_LIMIT_S)

    def kill(self) -> None:
        """Kills all processes of the machine at once, as a power failure does."""
        self._signal_all(signal.SIGKILL)
        assert self._agent is not None
        self._agent.wait(WAIT_LIMIT_S)
        eventually(lambda: not self.pids(), self.pids)

    def limit_files(self, most_bytes: int) -> None:
        """Lets the kernel refuse to write files of more bytes than these to the agent, as a full disk does."""
        resource.prlimit(self.agent_pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    def freeze(self) -> None:
        """Stops all processes of the machine, as a network that drops its packets does for everybody else."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets the processes of the machine go on."""
        self._signal_all(signal.SIGCONT)

    def end(self) -> None:
        """Ends the agent and whatever is left of its workers."""
        if self._agent is not None and self._agent.poll() is None:
            self.thaw()
            self.end_agent()
        end_orphans(deployment_paths(self.state))

    def _signal_all(self, number: int) -> None:
        assert self._agent is not None
        pids = self.pids()
        self._agent.send_signal(number)
        for pid in pids:
            os.kill(pid, number)


class Machines:
    """The machines of a cluster, and the files of its controller.

    Args:
        folder: Folder for all files.
        names: Names of the nodes.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        certificates = folder / "certificates"
        create_authority(certificates, "test")
        for name in (*names, "controller"):
            issue(certificates, name, ("127.0.0.1",))
        outside = {name: text for name, text in os.environ.items() if not name.startswith("JIGSAW_")}
        cache = {name: text for name, text in os.environ.items() if name == "JIGSAW_CACHE"}
        ports = free_ports(len(names))
        self.by_name = {
            name: Machine(name, folder, port, {**outside, **cache}) for name, port in zip(names, ports, strict=True)
        }

    def start(self) -> None:
        """Starts all agents, and waits until they listen."""
        for machine in self.by_name.values():
            machine.start()
        for machine in self.by_name.values():
            machine.wait_listening()

    def end(self) -> None:
        """Ends all agents and workers."""
        for machine in self.by_name.values():
            machine.end()

    def cluster(
        self, system: System, gpus: str = "{model: cpu, count: 1}", *, extra: str = "", standby: str = ""
    ) -> Path:
        """Writes the cluster.yaml for a deployment.

        Args:
            system: Deployment, whose ports the gateway gets.
            gpus: GPUs of each node.
            extra: Another line of its specification.
            standby: Node of the standby gateway, which listens on `STANDBY_ADDRESS`; empty for none.
        """
        gateway = f"http: {system.http}, grpc: {system.grpc}, metrics: {system.metrics}"
        if standby:
            gateway += f", standby: {{node: {standby}, address: {STANDBY_ADDRESS}}}"
        nodes = "\n".join(
            f'    - {{name: {m.name}, agent: "127.0.0.1:{m.port}", gpus: [{gpus}]}}' for m in self.by_name.values()
        )
        file = self._folder / "cluster.yaml"
        file.write_text(
            "apiVersion: jigsaw-triton/v1\n"
            "kind: Cluster\n"
            "spec:\n"
            "  driver: emulated\n"
            "  engine: agents\n"
            "  certificates: certificates/controller\n"
            f"  gateway: {{{gateway}}}\n"
            f"  nodes:\n{nodes}\n" + (f"  {extra}\n" if extra else "")
        )
        return file
