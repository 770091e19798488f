"""The GPUs that the demo runs on: emulated ones, or a machine behind a stand-in for NVIDIA's library."""

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
"""What real boards are said to take; nobody has published figures."""


class Gpus(Protocol):
    """What the demo needs to know of them."""

    @property
    def flags(self) -> Sequence[str]:
        """Of commands that plan for them."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """Of every command."""
        ...

    @property
    def said(self) -> str:
        """What is real and what is not."""
        ...

    @property
    def looks(self) -> Sequence[Sequence[str]]:
        """Commands that show them."""
        ...

    def left(self) -> Sequence[object]:
        """MIG instances that are there and should not be."""
        ...

    def summary(self) -> str:
        """What was done to them."""
        ...


class EmulatedGpus:
    """MIG in a file of the deployment.

    Args:
        work: The demo's folder.
    """

    flags = ("--gpus", f"{_COUNT}x{_BOARD}")
    env: Mapping[str, str] = {}
    said = "MIG is emulated, the models really run on this processor"
    looks: Sequence[Sequence[str]] = ()

    def __init__(self, work: Path) -> None:
        self._state = work / "state" / "mig.json"

    def left(self) -> Sequence[object]:
        """All instances in the file."""
        instances: list[object] = json.loads(self._state.read_text())["instances"]
        return instances

    def summary(self) -> str:
        """Nothing happened to any GPU."""
        return "no GPU was needed"


class StandInGpus:
    """Boards behind the stand-in, on one of which somebody else has an instance.

    Args:
        work: The demo's folder.
    """

    flags = (*EmulatedGpus.flags, "--driver", "nvml")
    said = "MIG goes through NVML to a stand-in for NVIDIA's library, the models really run on this processor"
    looks = (("mig", "list"),)

    def __init__(self, work: Path) -> None:
        self._machine = Machine(work / "gpus", [_BOARD] * _COUNT)
        self._machine.delays(create_ms=_CREATE_MS, destroy_ms=_DESTROY_MS)
        self._others = self._machine.foreign(1, "1g", 6)

    @property
    def env(self) -> Mapping[str, str]:
        """What lets commands find the stand-in."""
        return self._machine.env

    def left(self) -> Sequence[object]:
        """All but the one that somebody else has; that one, where it is gone."""
        self._machine.enter()
        driver = NvmlMigDriver("local", dict.fromkeys(range(_COUNT), board(_BOARD)))
        there = driver.instances()
        kept = any(instance.uuid == self._others for instance in there)
        return [*(i for i in there if i.uuid != self._others), *([] if kept else [f"{self._others} is gone"])]

    def summary(self) -> str:
        """Calls that changed something."""
        counts = Counter((call.name, call.code) for call in self._machine.changes())
        told = ", ".join(f"{n} {name}{f' (code {code})' if code else ''}" for (name, code), n in sorted(counts.items()))
        return f"NVML was asked for {told}; somebody else's instance was left alone"
