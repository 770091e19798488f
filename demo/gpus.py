"""GPUs of the demo: emulated ones, or those of a stand-in for NVIDIA's library."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from tests.fakes.nvml.machine import Machine

_BOARD = "cpu"
_COUNT = 2
_CREATE_MS, _DESTROY_MS = 200, 1000
"""Milliseconds of a creation and of a destruction, as users report them of real boards. Nobody published figures."""


class Gpus(Protocol):
    """GPUs that the demo can run on."""

    @property
    def flags(self) -> Sequence[str]:
        """Options for commands that plan for these GPUs."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables for every command."""
        ...

    @property
    def disclosure(self) -> str:
        """Statement of what is real and what is emulated."""
        ...

    @property
    def inspections(self) -> Sequence[Sequence[str]]:
        """Arguments of the commands that show the GPUs."""
        ...

    def left(self) -> Sequence[object]:
        """Returns what `down` should have removed: MIG instances, or a message."""
        ...

    def summary(self) -> str:
        """Returns a sentence about the changes that were made to the GPUs."""
        ...


class EmulatedGpus:
    """Emulated GPUs, whose MIG instances are kept in a file of the deployment.

    Args:
        work: Folder of the demo.
    """

    flags = ("--gpus", f"{_COUNT}x{_BOARD}")
    env: Mapping[str, str] = {}
    disclosure = "MIG is emulated, and the models really run on this processor"
    inspections: Sequence[Sequence[str]] = ()

    def __init__(self, work: Path) -> None:
        self._state = work / "state" / "mig.json"

    def left(self) -> Sequence[object]:
        """Returns all instances in the file."""
        instances: list[object] = json.loads(self._state.read_text())["instances"]
        return instances

    def summary(self) -> str:
        """Says that no GPU was needed."""
        return "no GPU was needed"


class StandInGpus:
    """GPUs of the stand-in for NVIDIA's library. One has a MIG instance that does not belong to the deployment.

    Args:
        work: Folder of the demo.
    """

    flags = (*EmulatedGpus.flags, "--driver", "nvml")
    disclosure = "MIG goes through NVML to a stand-in for NVIDIA's library, and the models really run on this processor"
    inspections = (("mig", "list"),)

    def __init__(self, work: Path) -> None:
        self._machine = Machine(work / "gpus", [_BOARD] * _COUNT)
        self._machine.delays(create_ms=_CREATE_MS, destroy_ms=_DESTROY_MS)
        self._foreign = self._machine.foreign(1, "1g", 6)

    @property
    def env(self) -> Mapping[str, str]:
        """Variables that make commands load the stand-in."""
        return self._machine.env

    def left(self) -> Sequence[object]:
        """Returns the instances of the deployment, and a message if the foreign instance is gone."""
        self._machine.enter()
        driver = NvmlMigDriver("local", dict.fromkeys(range(_COUNT), board(_BOARD)))
        instances = driver.instances()
        kept = any(instance.uuid == self._foreign for instance in instances)
        return [*(i for i in instances if i.uuid != self._foreign), *([] if kept else [f"{self._foreign} is gone"])]

    def summary(self) -> str:
        """Lists the NVML calls that changed something."""
        counts = Counter((call.name, call.code) for call in self._machine.changes())
        calls = ", ".join(
            f"{n} {name}{f' (code {code})' if code else ''}" for (name, code), n in sorted(counts.items())
        )
        return f"calls to NVML: {calls}; the foreign instance was left alone"
