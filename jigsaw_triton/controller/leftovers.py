"""Ends what a controller that was killed left, by its journal: servers on their way out, MPS daemons, MIG instances."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Literal

from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import CallRecord, Journal, ServerRecord
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.servers.image import Runtime, end_containers
from jigsaw_triton.servers.mps import end_processes
from jigsaw_triton.servers.process import group_members, sweep

DRIVER_FACT = "driver"
"""What the journal has the name of the deployment's MIG driver under."""

_RUNTIME_FACT, _RUN_DIR_FACT = "container runtime", "run directory"
"""Likewise what its containers are found by."""

_POLL_S = 0.02


def end_leftovers(journal: Journal, state_dir: Path) -> int:
    """Kills the servers and MPS daemons and destroys the MIG instances that the journal knows of. Blocks.

    Args:
        journal: Of the deployment, whose controller must be gone.
        state_dir: Its folder.

    Returns:
        How many servers, daemons and instances were still there.

    Raises:
        InstanceInUseError: Somebody else's process holds one of the instances.
        MigError: The driver refused otherwise.
    """
    ended = 0
    for record in journal.servers():
        ended += bool(_processes(record))
        while processes := _processes(record):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_POLL_S)
        sweep(record.shm_prefix)
        journal.forget_server(record.name)
    for pipes in journal.daemons():
        # The MPS server holds its instance.
        ended += bool(end_processes(Path(pipes)))
        shutil.rmtree(pipes, ignore_errors=True)
        journal.forget_daemon(pipes)
    program = Path(journal.fact(_RUNTIME_FACT))
    if program.is_file():
        ended += end_containers(Runtime(program, (os.getuid(), os.getgid())), journal.fact(_RUN_DIR_FACT))
        journal.keep_fact(_RUNTIME_FACT, "")
    if not journal.instances() and not journal.creations():
        return ended
    # The driver that they were made with, whichever one is asked for now, on GPUs that a cluster may have no more.
    name: Literal["nvml", "emulated"] = "nvml" if journal.fact(DRIVER_FACT) == "nvml" else "emulated"
    node = [instance.gpu.node for instance in journal.instances()] + [gpu.node for gpu, _ in journal.creations()]
    driver = open_driver(Cluster((), driver=name), state_dir, CallRecord(journal), node=node[0])
    return ended + Instances(journal, driver).end_all()


def note_runtime(journal: Journal, runtime: Runtime, run_dir: Path) -> None:
    """Notes by what containers of a deployment are run, before the first is."""
    journal.keep_fact(_RUN_DIR_FACT, str(run_dir))
    journal.keep_fact(_RUNTIME_FACT, str(runtime.program))


def _processes(record: ServerRecord) -> list[int]:
    """The living processes of a server: its group, or what is left of it."""
    members = group_members(record.pid)
    if start_time(record.pid) == record.started:
        return members
    # Its stubs outlive it by a moment. They name their regions on their command lines; nobody else does.
    return [process for process in members if record.shm_prefix.encode() in _command_line(process)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def start_time(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks; None where there is none."""
    try:
        # After the command's name in parentheses; the 22nd field of the whole line.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
