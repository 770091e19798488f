"""A machine with GPUs that can be cut, for pynvml's own code: `libnvidia-ml.so.1` built from the sources beside this.

The state of the GPUs is in a file that all processes share which have `Machine.env` in their environment.
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
"""How a call ends: with a code, never, or with the process, before or after it took effect."""

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
"""Calls that change something."""


@cache
def library() -> Path:
    """The stand-in, compiled if its sources have changed.

    Raises:
        RuntimeError: There is no gcc, or it does not compile.
    """
    sources = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = BUILD / digest / LIBRARY
    if target.exists():
        return target
    compiler = shutil.which("gcc")
    if compiler is None:
        raise RuntimeError(
            "the stand-in for NVML is compiled with gcc, which is not there; apt-get install gcc libc6-dev"
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
        pid: Who called.
        name: Of the function.
        arguments: As the stand-in writes them.
        code: What it returned.
    """

    pid: int
    name: str
    arguments: str
    code: int


class Machine:
    """GPUs in a file.

    Args:
        path: Of the file; what is there is replaced.
        models: Boards of the catalog, or `L4`, which knows no MIG; in the order of their indexes.
        mig: Whether MIG is on.
    """

    def __init__(self, path: Path, models: Sequence[str], *, mig: bool = True) -> None:
        self.path = path
        self.models = tuple(models)
        self._library = ctypes.CDLL(str(library()))
        self._do("create", ",".join(models).encode(), mig)
        self.forget_calls()

    @property
    def env(self) -> Mapping[str, str]:
        """What lets a process's pynvml find this machine; to be laid over an environment."""
        paths = [str(library().parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"NVML_STANDIN": str(self.path), "LD_LIBRARY_PATH": ":".join(paths)}

    def enter(self) -> None:
        """Makes this process's pynvml speak to this machine, and to no driver that it may have found before."""
        enter(self.path)

    def leave(self) -> None:
        """Undoes `enter`."""
        os.environ.pop("NVML_STANDIN", None)
        pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()

    def delays(self, *, create_ms: int, destroy_ms: int) -> None:
        """How long each creation and each destruction takes; none at first."""
        self._do("delays", create_ms, destroy_ms)

    def deny(self, what: Literal["nothing", "changes", "all"]) -> None:
        """What the user has no right to do."""
        self._do("deny", _DENIALS[what])

    def fault(self, call: str, nth: int, action: Action, code: int = 0) -> None:
        """Has the n-th call from now on come to a bad end.

        Args:
            call: NVML's name of the function; `change` for any that changes something, `*` for any.
            nth: From 1; 0 for every one.
            action: How it ends.
            code: What it returns where it fails.
        """
        self._do("fault", call.encode(), nth, _ACTIONS.index(action), code)

    def forget_faults(self) -> None:
        """No call comes to a bad end any more."""
        self._do("fault", b"", 0, 0, 0)

    def foreign(self, index: int, slice_: str, start: int, *, half: bool = False) -> str:
        """Makes somebody else's instance; its UUID, empty where it is without a compute instance."""
        boards = board(self.models[index])
        kind = slice_.removesuffix("+me")
        profile = (boards.media_profiles if slice_ != kind else boards.profiles)[kind]
        uuid = ctypes.create_string_buffer(64)
        self._do("foreign", index, profile.nvml_enum, start, half, uuid)
        return uuid.value.decode()

    def hold(self, uuid: str, pid: int) -> None:
        """Says that a process holds the instance, or the board, of this UUID."""
        self._do("hold", uuid.encode(), pid)

    def let_go(self) -> None:
        """Nobody holds anything any more, but for processes that really were started with a UUID."""
        self._do("hold", b"", 0)

    def agent(self, index: int, start: int, seconds: float) -> None:
        """Has a monitoring agent, which NVML does not name, hold what starts there."""
        self._do("agent", index, start, round(1000 * seconds))

    def reset(self, index: int) -> None:
        """Resets a GPU: the pending mode takes effect."""
        self._do("reset", index)

    def unload(self, *, load_again: bool = True) -> None:
        """Unloads the driver: instances are gone, and so is the mode on boards that change it without a reset."""
        self._do("unload", load_again)

    def calls(self) -> list[Call]:
        """All calls of all processes since the machine was made, or since `forget_calls`."""
        return [_call(line) for line in self._audit.read_text().splitlines()]

    def changes(self) -> list[Call]:
        """Those that change something, also where they were refused."""
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
    """Makes this process's pynvml speak to the machine whose state is in a file."""
    os.environ["NVML_STANDIN"] = str(path)
    pynvml.nvmlLib = ctypes.CDLL(str(library()))
    pynvml._nvmlGetFunctionPointer_cache.clear()


def _call(line: str) -> Call:
    pid, _, rest = line.partition(" ")
    name, _, rest = rest.partition("(")
    arguments, _, code = rest.rpartition(") = ")
    return Call(int(pid), name, arguments, int(code))
