"""The MIG drivers that one contract holds for: the emulated one, and NVML's on the stand-in."""

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
    """Two GPUs and the processes that use them.

    Args:
        kind: Of driver.
        folder: Where the state of the GPUs is.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.machine = Machine(folder / "gpus", MODELS) if kind == "nvml" else None

    def driver(self) -> MigDriver:
        """A driver of its own, as another process would have it."""
        return opened(self.kind, self.folder)

    def python(self, program: str, *arguments: object) -> "subprocess.Popen[str]":
        """Starts a program that finds a driver as `here`."""
        preamble = f"""
import sys
from pathlib import Path
from tests.gpus.drivers import *
from jigsaw_triton.errors import *
from jigsaw_triton.gpus.model import *
here = opened({self.kind!r}, Path({str(self.folder)!r}))
"""
        command = [sys.executable, "-c", preamble + program, *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, **self._env}, stdout=subprocess.PIPE, text=True)

    @property
    def _env(self) -> Mapping[str, str]:
        return self.machine.env if self.machine is not None else {}


def opened(kind: Kind, folder: Path) -> MigDriver:
    """A driver for `GPUS`."""
    if kind == "emulated":
        return EmulatedMigDriver(folder / "mig.json", GPUS)
    return NvmlMigDriver("a", {gpu.id.index: gpu.board for gpu in GPUS})


@contextmanager
def world_of(kind: Kind, folder: Path) -> Iterator[World]:
    """A world that this process is in."""
    world = World(kind, folder)
    if world.machine is not None:
        world.machine.enter()
    yield world
    if world.machine is not None:
        world.machine.leave()
