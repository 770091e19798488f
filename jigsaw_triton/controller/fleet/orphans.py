"""Orphans of a killed controller: servers, MPS daemons and containers that run, and MIG instances in its journal."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.persistence.call_record import CallRecord
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.driver import MigDriver, open_driver
from jigsaw_triton.gpus.model import Cluster, GpuId, Placement
from jigsaw_triton.servers.command import shm_prefix
from jigsaw_triton.servers.container import container_of
from jigsaw_triton.servers.image import Runtime, end_container, end_containers
from jigsaw_triton.servers.members import end_members, leaders, members
from jigsaw_triton.servers.process import sweep
from jigsaw_triton.spec.words import LOCAL_NODE

DRIVER_FACT = "driver"
"""Journal key of the name of the deployment's MIG driver."""

_RUNTIME_FACT, _RUN_DIR_FACT = "container runtime", "run directory"
"""Journal keys of the container runtime and of the run directory, by which containers are found."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Servers and MIG instances of an earlier controller that the next one takes over.

    Attributes:
        servers: Names of the servers, which include MPS daemons.
        places: Places of the MIG instances.
    """

    servers: frozenset[str] = frozenset()
    places: frozenset[tuple[GpuId, Placement]] = frozenset()


NOTHING = Kept()


def end_orphans(journal: Journal, paths: Paths, keep: Kept = NOTHING) -> int:
    """Kills the servers, MPS daemons and containers of a deployment, and destroys its MIG instances. Blocks.

    Args:
        journal: Journal of the deployment, whose controller must have ended.
        paths: Paths of the deployment.
        keep: Servers and instances that are left alone.

    Returns:
        Number of servers, daemons, containers and instances that still existed.

    Raises:
        ServerError: A process does not end.
        InstanceInUseError: A process outside the deployment holds one of the instances.
        MigError: The driver refuses for another reason.
    """
    reclaim(journal, paths)
    runtime = _runtime(journal)
    running = {member.server for member in members(paths.state)} - keep.servers
    if runtime is not None:
        for name in running:
            end_container(container_of(runtime, shm_prefix(paths.run, name)))
    # An MPS server holds its instance, so it must end before the instance is destroyed.
    running |= end_members(paths.state, keep.servers)
    for name in (running | paths.servers()) - keep.servers:
        sweep(shm_prefix(paths.run, name))
    ended = len(running)
    if runtime is not None and not keep.servers:
        ended += end_containers(runtime, journal.fact(_RUN_DIR_FACT))
        journal.keep_fact(_RUNTIME_FACT, "")
    if not journal.instances() and not journal.creations():
        return ended
    node = [instance.gpu.node for instance in journal.instances()] + [gpu.node for gpu, _ in journal.creations()]
    return ended + Instances(journal, _driver(journal, paths, node[0])).end_all(keep.places)


def end_servers(journal: Journal, paths: Paths, names: Collection[str]) -> None:
    """Kills servers of a deployment, and removes their containers. Others may start meanwhile. Blocks.

    Args:
        journal: Journal of the deployment.
        paths: Paths of the deployment.
        names: Names of the servers, which need not run.

    Raises:
        ServerError: A process does not end.
    """
    runtime = _runtime(journal)
    if runtime is not None:
        for name in {member.server for member in members(paths.state)}.intersection(names):
            end_container(container_of(runtime, shm_prefix(paths.run, name)))
    end_members(paths.state, only=names)


def _runtime(journal: Journal) -> Runtime | None:
    """Returns the container runtime of the deployment; None if it has no containers, or if it was uninstalled."""
    program = Path(journal.fact(_RUNTIME_FACT))
    return Runtime(program, (os.getuid(), os.getgid())) if program.is_file() else None


def reclaim(journal: Journal, paths: Paths) -> None:
    """Records the MIG instances that the deployment's servers run on, in case the journal was lost. Blocks.

    Raises:
        MigError: The driver does not answer.
    """
    devices = {leader.device for leader in leaders(members(paths.state)).values() if leader.device.startswith("MIG-")}
    lost = devices - {instance.uuid for instance in journal.instances()}
    if not lost:
        return
    if not journal.fact(DRIVER_FACT):
        emulated = open_driver(Cluster((), driver="emulated"), paths.state).instances()
        journal.keep_fact(DRIVER_FACT, "emulated" if lost & {i.uuid for i in emulated} else "nvml")
    for instance in _driver(journal, paths).instances():
        if instance.uuid in lost:
            journal.keep_instance(instance)


def _driver(journal: Journal, paths: Paths, node: str = LOCAL_NODE) -> MigDriver:
    """Opens the driver that created the instances, not the configured one: their GPUs may have left the cluster."""
    name: Literal["nvml", "emulated"] = "nvml" if journal.fact(DRIVER_FACT) == "nvml" else "emulated"
    return open_driver(Cluster((), driver=name), paths.state, CallRecord(journal), node=node)


def note_runtime(journal: Journal, runtime: Runtime, run_dir: Path) -> None:
    """Records the container runtime and the run directory in the journal, before the first container starts."""
    journal.keep_fact(_RUN_DIR_FACT, str(run_dir))
    journal.keep_fact(_RUNTIME_FACT, str(runtime.program))
