"""Cells as a user deploys them on one machine, each with a state folder and ports of its own."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import yaml

from jigsaw_triton.servers.members import members
from tests.e2e.system import System, free_ports
from tests.front.world import FrontProcess


class FrontedCells:
    """Cells of one cpu board each, and a front over them.

    Args:
        folder: Folder for all files.
        nodes: Number of cells.
        board: Board of each cell.
    """

    def __init__(self, folder: Path, nodes: int = 2, board: str = "cpu") -> None:
        self.root = folder
        self.folder = folder / "cells"
        self.systems = {
            name: System(self.folder / "cells" / name / "state") for name in (f"cell{n + 1}" for n in range(nodes))
        }
        # All at once, so that no port is chosen twice.
        ports = free_ports(3 * nodes + 3)
        for number, system in enumerate(self.systems.values()):
            system.http, system.grpc, system.metrics = ports[3 * number : 3 * number + 3]
        self.front = FrontProcess(self.folder, ports[3 * nodes :])
        listed = "".join(f"    - {{name: n{node}, gpus: [{{model: {board}}}]}}\n" for node in range(nodes))
        self._cluster = folder / "cluster.yaml"
        self._cluster.write_text(
            f"apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n  nodes:\n{listed}"
        )

    @property
    def first(self) -> System:
        """Deployment of the first cell, which also runs commands that belong to none."""
        return self.systems["cell1"]

    def run(self, *arguments: object) -> str:
        """Runs a command and checks that it succeeds. Returns what it prints."""
        result = self.first.run(*arguments)
        assert result.code == 0, result.out + result.err
        return result.out

    def create(self, app: Path, demand: float, *options: object) -> None:
        """Plans the cells, writes their files, and gives them and the front free ports."""
        plan = self.root / "plan.json"
        count = len(self.systems)
        planning = ("--demand", demand, "--cells", count, "-O", plan, *options)
        self.run("plan", app, "--cluster", self._cluster, *planning)
        self.run("cells", "create", app, "--cluster", self._cluster, "--plan", plan, "-O", self.folder)
        entries = yaml.safe_load(self.front.file.read_text())["spec"]["cells"]
        for entry in entries:
            system = self.systems[entry["name"]]
            ports = {"http": system.http, "grpc": system.grpc, "metrics": system.metrics}
            entry |= {key: f"127.0.0.1:{port}" for key, port in ports.items()}
            file = self.folder / "cells" / entry["name"] / "cluster.yaml"
            document = yaml.safe_load(file.read_text())
            document["spec"]["gateway"] = ports
            file.write_text(yaml.safe_dump(document))
        self.entries = entries
        self.front.write(entries)

    def deploy(self, *options: object) -> str:
        """Deploys all cells. Returns what the command prints."""
        return self.run("cells", "deploy", self.folder, *options)

    def kill(self, name: str) -> float:
        """Kills all processes of a cell: supervisor and controller first, so that nothing is restarted.

        Returns:
            Monotonic time at which the gateway had ended.
        """
        system = self.systems[name]
        gateway = system.status()["gateway"]["pid"]
        for pid in (system.supervisor_pid(), system.controller_pid(), gateway):
            os.kill(pid, signal.SIGKILL)
        system.wait_ended(gateway)
        ended_s = time.monotonic()
        for member in members(system.state):
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        system.wait_gone()
        return ended_s

    def end(self) -> None:
        """Ends the front and all cells, and checks that they leave nothing behind."""
        if self.front.runs:
            self.front.end(signal.SIGTERM)
        for system in self.systems.values():
            if system.orphans():
                system.end()
