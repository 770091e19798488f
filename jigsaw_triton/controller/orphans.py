"""Orphans of a killed controller: servers, MPS daemons, containers and MIG instances that its journal lists."""

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import CallRecord, Journal, ServerRecord
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster, GpuId, Placement
from jigsaw_triton.servers.container import container_of
from jigsaw_triton.servers.image import Runtime, end_container, end_containers
from jigsaw_triton.servers.mps import end_processes
from jigsaw_triton.servers.os_process import start_time
from jigsaw_triton.servers.process import group_members, sweep

DRIVER_FACT = "driver"
"""Journal key of the name of the deployment's MIG driver."""

_RUNTIME_FACT, _RUN_DIR_FACT = "container runtime", "run directory"
"""Journal keys of the container runtime and of the run directory, by which containers are found."""

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Kept:
    """Servers, daemons and MIG instances of an earlier controller that the next one takes over.

    Attributes:
        servers: Names of the servers.
        pipes: Pipe directories of the MPS daemons.
        places: Places of the MIG instances.
    """

    servers: frozenset[str] = frozenset()
    pipes: frozenset[str] = frozenset()
    places: frozenset[tuple[GpuId, Placement]] = frozenset()


NOTHING = Kept()


def end_orphans(journal: Journal, state_dir: Path, keep: Kept = NOTHING) -> int:
    """Kills the servers, MPS daemons and containers, and destroys the MIG instances, that the journal lists. Blocks.

    Args:
        journal: Journal of the deployment, whose controller must have ended.
        state_dir: State folder of the deployment.
        keep: Servers, daemons and instances that are left alone.

    Returns:
        Number of servers, daemons, containers and instances that still existed.

    Raises:
        InstanceInUseError: A process outside the deployment holds one of the instances.
        MigError: The driver refuses for another reason.
    """
    ended = 0
    program = Path(journal.fact(_RUNTIME_FACT))
    runtime = Runtime(program, (os.getuid(), os.getgid())) if program.is_file() else None
    for record in journal.servers():
        if record.name in keep.servers:
            continue
        if runtime is not None:
            end_container(container_of(runtime, record.shm_prefix))
        ended += bool(_processes(record))
        while processes := _processes(record):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_POLL_S)
        sweep(record.shm_prefix)
        journal.forget_server(record.name)
    for pipes in journal.daemons():
        if pipes in keep.pipes:
            continue
        # The MPS server holds the instance, so it must end before the instance is destroyed.
        ended += bool(end_processes(Path(pipes)))
        shutil.rmtree(pipes, ignore_errors=True)
        journal.forget_daemon(pipes)
    if runtime is not None and not keep.servers:
        ended += end_containers(runtime, journal.fact(_RUN_DIR_FACT))
        journal.keep_fact(_RUNTIME_FACT, "")
    if not journal.instances() and not journal.creations():
        return ended
    # Use the driver that created the instances, not the configured one: their GPUs may have left the cluster.
    name: Literal["nvml", "emulated"] = "nvml" if journal.fact(DRIVER_FACT) == "nvml" else "emulated"
    node = [instance.gpu.node for instance in journal.instances()] + [gpu.node for gpu, _ in journal.creations()]
    driver = open_driver(Cluster((), driver=name), state_dir, CallRecord(journal), node=node[0])
    return ended + Instances(journal, driver).end_all(keep.places)


def note_runtime(journal: Journal, runtime: Runtime, run_dir: Path) -> None:
    """Records the container runtime and the run directory in the journal, before the first container starts."""
    journal.keep_fact(_RUN_DIR_FACT, str(run_dir))
    journal.keep_fact(_RUNTIME_FACT, str(runtime.program))


def _processes(record: ServerRecord) -> list[int]:
    """Returns the living processes of a server: its process group, or the stubs left after its leader has ended."""
    members = group_members(record.pid)
    if start_time(record.pid) == record.started:
        return members
    # The stubs outlive their server for a moment. Only they have its shared-memory prefix on their command lines.
    return [process for process in members if record.shm_prefix.encode() in _command_line(process)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
