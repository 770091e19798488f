"""The two MIG drivers under test: the emulated driver, and the NVML driver on the simulated NVML library."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from tests.fakes.nvml.machine import Machine

Kind = Literal["emulated", "nvml"]
KINDS: tuple[Kind, ...] = get_args(Kind)

A0, A1 = GpuId("a", 0), GpuId("a", 1)
MODELS = ("A100-80GB", "A30-24GB")
GPUS = tuple(Gpu(GpuId("a", index), board(name)) for index, name in enumerate(MODELS))


class World:
    """Two simulated GPUs, for this process and for programs that it starts.

    Args:
        kind: Kind of driver.
        folder: Folder for the state of the GPUs.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.machine = Machine(folder / "gpus", MODELS) if kind == "nvml" else None

    def driver(self) -> MigDriver:
        """Returns a new driver, independent of earlier ones as if another process had opened it."""
        return driver_in(self.kind, self.folder)

    def python(self, program: str, *arguments: object) -> "subprocess.Popen[str]":
        """Starts a Python program in which the name `driver` is a driver for these GPUs."""
        preamble = f"""
import sys
from pathlib import Path
from tests.gpus.drivers import *
from jigsaw_triton.errors import *
from jigsaw_triton.gpus.model import *
driver = driver_in({self.kind!r}, Path({str(self.folder)!r}))
"""
        command = [sys.executable, "-c", preamble + program, *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, **self._env}, stdout=subprocess.PIPE, text=True)

    @property
    def _env(self) -> Mapping[str, str]:
        return self.machine.env if self.machine is not None else {}


def driver_in(kind: Kind, folder: Path) -> MigDriver:
    """Returns a driver for `GPUS` whose state is in this folder."""
    if kind == "emulated":
        return EmulatedMigDriver(folder / "mig.json", GPUS)
    return NvmlMigDriver("a", {gpu.id.index: gpu.board for gpu in GPUS})


@contextmanager
def entered_world(kind: Kind, folder: Path) -> Iterator[World]:
    """Returns a world whose GPUs this process uses."""
    world = World(kind, folder)
    if world.machine is not None:
        world.machine.enter()
    yield world
    if world.machine is not None:
        world.machine.leave()
