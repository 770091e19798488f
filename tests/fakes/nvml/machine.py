"""A simulated machine with MIG GPUs, which pynvml uses through a `libnvidia-ml.so.1` that is built from this folder.

The state of the GPUs is in a file, which is shared by all processes that have `Machine.env` in their environment.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import pynvml

from jigsaw_triton.gpus.catalog import board

SOURCES = Path(__file__).parent
BUILD = SOURCES / "build"
LIBRARY = "libnvidia-ml.so.1"

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")

Action = Literal["fail", "hang", "crash before", "crash after"]
"""Fault of a call: it returns an error code, never returns, or kills the process before or after it takes effect."""

_ACTIONS: Sequence[Action] = ("fail", "hang", "crash before", "crash after")
_DENIALS = {"nothing": 0, "changes": 1, "all": 3}

CHANGES = frozenset(
    {
        "nvmlDeviceCreateGpuInstance",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
        "nvmlComputeInstanceDestroy",
        "nvmlGpuInstanceDestroy",
        "nvmlDeviceSetMigMode",
    }
)
"""Names of the calls that change something."""


@cache
def library() -> Path:
    """Returns the path of the stand-in's library, and compiles it if its sources have changed.

    Raises:
        RuntimeError: There is no gcc, or the library does not compile.
    """
    sources = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = BUILD / digest / LIBRARY
    if target.exists():
        return target
    compiler = shutil.which("gcc")
    if compiler is None:
        raise RuntimeError(
            "the stand-in for NVML is compiled with gcc, which is not installed; apt-get install gcc libc6-dev"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{LIBRARY}.{os.getpid()}")
    units = [str(path) for path in sources if path.suffix == ".c"]
    command = [compiler, *_FLAGS, f"-Wl,-soname,{LIBRARY}", "-o", str(fresh), *units]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"the stand-in for NVML does not compile:\n{built.stderr}")
    fresh.replace(target)
    return target


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the audit log.

    Attributes:
        pid: Id of the calling process.
        name: Name of the function.
        arguments: Arguments, as the stand-in writes them.
        code: Return code.
    """

    pid: int
    name: str
    arguments: str
    code: int


class Machine:
    """Simulated GPUs, whose state is in a file.

    Args:
        path: Path of the file; an existing file is replaced.
        models: Boards in the order of their indexes: names from the catalog, or `L4`, which does not support MIG.
        mig: True if MIG is on.
    """

    def __init__(self, path: Path, models: Sequence[str], *, mig: bool = True) -> None:
        self.path = path
        self.models = tuple(models)
        self._library = ctypes.CDLL(str(library()))
        self._do("create", ",".join(models).encode(), mig)
        self.forget_calls()

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables with which a process's pynvml uses this machine, to be added to an environment."""
        paths = [str(library().parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"NVML_STANDIN": str(self.path), "LD_LIBRARY_PATH": ":".join(paths)}

    def enter(self) -> None:
        """Makes this process's pynvml use this machine, instead of any driver that it has loaded before."""
        enter(self.path)

    def leave(self) -> None:
        """Undoes `enter`."""
        os.environ.pop("NVML_STANDIN", None)
        pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()

    def delays(self, *, create_ms: int, destroy_ms: int) -> None:
        """Sets the duration of each creation and each destruction, which is 0 at first."""
        self._do("delays", create_ms, destroy_ms)

    def deny(self, what: Literal["nothing", "changes", "all"]) -> None:
        """Sets the calls that the user has no right to make."""
        self._do("deny", _DENIALS[what])

    def fault(self, call: str, nth: int, action: Action, code: int = 0) -> None:
        """Adds a fault to the n-th call from now on.

        Args:
            call: NVML's name of the function; `change` for any call that changes something, `*` for any call.
            nth: Number of the call, from 1; 0 for every call.
            action: Fault of the call.
            code: Return code if the action is `fail`.
        """
        self._do("fault", call.encode(), nth, _ACTIONS.index(action), code)

    def foreign(self, index: int, slice_: str, start: int, *, half: bool = False) -> str:
        """Creates an instance of another owner and returns its UUID, which is empty for a half-made instance."""
        profile = board(self.models[index]).profile(slice_)
        assert profile is not None
        uuid = ctypes.create_string_buffer(64)
        self._do("foreign", index, profile.nvml_enum, start, half, uuid)
        return uuid.value.decode()

    def hold(self, uuid: str, pid: int) -> None:
        """Makes a process hold the instance, or the board, with this UUID."""
        self._do("hold", uuid.encode(), pid)

    def let_go(self) -> None:
        """Undoes all `hold` calls. Processes that were started with a UUID still hold its instance."""
        self._do("hold", b"", 0)

    def agent(self, index: int, start: int, seconds: float) -> None:
        """Makes a monitoring agent, which NVML does not name, hold the instance at this start."""
        self._do("agent", index, start, round(1000 * seconds))

    def consume(self, index: int, joules: int) -> None:
        """Adds to the energy of a GPU, which also grows by 80 joules a second."""
        self._do("consume", index, joules)

    def reset(self, index: int) -> None:
        """Resets a GPU, so that the pending MIG mode takes effect."""
        self._do("reset", index)

    def unload(self, *, load_again: bool = True) -> None:
        """Unloads the driver, and loads it again by default.

        All instances are lost, and so is the MIG mode of boards that change it without a reset.
        """
        self._do("unload", load_again)

    def calls(self) -> list[Call]:
        """Returns all calls of all processes since the machine was created, or since `forget_calls`."""
        return [_call(line) for line in self._audit.read_text().splitlines()]

    def changes(self) -> list[Call]:
        """Returns the calls that change something, including refused ones."""
        return [call for call in self.calls() if call.name in CHANGES]

    def forget_calls(self) -> None:
        """Empties the audit log."""
        self._audit.write_text("")

    @property
    def _audit(self) -> Path:
        return self.path.with_name(self.path.name + ".audit")

    def _do(self, what: str, *arguments: object) -> None:
        status = getattr(self._library, f"standin_{what}")(str(self.path).encode(), *arguments)
        if status != 0:
            raise ValueError(f"the stand-in cannot do this: {what} {arguments}, status {status}")


def enter(path: Path) -> None:
    """Makes this process's pynvml use the machine whose state is in this file."""
    os.environ["NVML_STANDIN"] = str(path)
    pynvml.nvmlLib = ctypes.CDLL(str(library()))
    pynvml._nvmlGetFunctionPointer_cache.clear()


def _call(line: str) -> Call:
    pid, _, rest = line.partition(" ")
    name, _, rest = rest.partition("(")
    arguments, _, code = rest.rpartition(") = ")
    return Call(int(pid), name, arguments, int(code))
