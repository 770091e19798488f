"""A MIG driver without silicon: MIG's rules, kept in a file that several processes share.

What it does as the real one does: the layouts that it allows, a new UUID on each creation, no destruction while a
process holds the instance, other people's instances left alone. What it does not do: limit what a process computes.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from jigsaw_triton.errors import InstanceInUseError, InstanceNotFoundError, MigError, PlacementError
from jigsaw_triton.gpus.holders import holders
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import (
    MEDIA,
    SLICES,
    Cluster,
    CreationStage,
    DeviceUse,
    Gpu,
    GpuId,
    MigInstance,
    Placement,
    Reached,
)

STATE_VERSION = 1

Operation = Literal["create", "destroy"]

Fault = Callable[[Operation, GpuId, Placement], None]
"""Called before each change takes effect; what it raises is what the change fails with."""


@dataclass(frozen=True, slots=True)
class Delays:
    """How long a change takes. NVIDIA publishes no figures; 200 ms and 1000 ms are a guess at real boards."""

    create_ms: float = 0.0
    destroy_ms: float = 0.0


def no_fault(operation: Operation, gpu: GpuId, placement: Placement) -> None:
    """Lets every change be."""


class EmulatedMigDriver:
    """MIG in a file.

    A change takes its delay and then effect at once: a process killed at any moment leaves the state before or after.
    Any number of processes and threads may use one file at a time.

    Args:
        path: The state file; made with the first instance, in a folder made with it, readable by its owner only.
        gpus: Those that instances can be created on. Instances on others are reported, kept, and can be destroyed.
        delays: None by default.
        sleep: Takes seconds.
        holders_of: UUID -> ids of the processes that hold the instance.
        fault: Makes changes fail.
    """

    def __init__(
        self,
        path: Path,
        gpus: Iterable[Gpu],
        *,
        delays: Delays = Delays(),
        sleep: Callable[[float], None] = time.sleep,
        holders_of: Callable[[str], tuple[int, ...]] = holders,
        fault: Fault = no_fault,
    ) -> None:
        self._state = _StateFile(path)
        self._boards = {gpu.id: gpu.board for gpu in gpus}
        self._delays = delays
        self._sleep = sleep
        self._holders_of = holders_of
        self._fault = fault

    def instances(self) -> tuple[MigInstance, ...]:
        """All MIG instances in the file, sorted by GPU and start.

        Raises:
            MigError: The file is damaged or cannot be read.
        """
        return self._state.read()

    def survey(self, cluster: Cluster) -> Cluster:
        """The cluster: emulated GPUs are what the catalog says."""
        return cluster

    def use(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """Nothing: a slice of the processor is no part of it that could be measured."""
        return {}

    def holders(self, uuid: str) -> tuple[int, ...]:
        """Ids of the processes that were started with an instance as their CUDA device, ascending."""
        return self._holders_of(uuid)

    def create(self, gpu: GpuId, placement: Placement, reached: Reached = lambda _: None) -> MigInstance:
        """Creates an instance exactly there; its UUID is new.

        Args:
            gpu: Where.
            placement: On it.
            reached: Told how far it gets.

        Raises:
            PlacementError: It overlaps another, exceeds the profile's maximum, or there is no such GPU or placement.
            MigError: The file is damaged or cannot be read or written.
        """
        board = self._boards.get(gpu)
        if board is None:
            known = ", ".join(str(g) for g in sorted(self._boards))
            raise PlacementError("there is no such GPU", where=str(gpu), hint=f"the cluster has {known}")
        self._sleep(self._delays.create_ms / 1000)
        with self._state.locked():
            existing = self._state.read()
            there = [i.placement for i in existing if i.gpu == gpu]
            reason = fits(board, [*there, placement])
            if reason is not None:
                raise PlacementError(f"no instance {placement} can be created: {reason}", where=str(gpu))
            self._fault("create", gpu, placement)
            reached(CreationStage.WHOLE)
            instance = MigInstance(gpu, placement, f"MIG-{uuid4()}")
            self._state.write([*existing, instance])
        return instance

    def destroy(self, uuid: str) -> None:
        """Destroys an instance.

        Raises:
            InstanceNotFoundError: There is none of this UUID.
            InstanceInUseError: A process holds it; the message has its id.
            MigError: The file is damaged or cannot be read or written.
        """
        self._sleep(self._delays.destroy_ms / 1000)
        with self._state.locked():
            existing = self._state.read()
            instance = next((i for i in existing if i.uuid == uuid), None)
            if instance is None:
                raise InstanceNotFoundError("there is no MIG instance of this UUID", where=uuid)
            pids = self._holders_of(uuid)
            if pids:
                raise InstanceInUseError(
                    f"{instance.placement} of {instance.gpu} is held by process {', '.join(map(str, pids))}",
                    where=uuid,
                    hint="stop what runs on it first",
                )
            self._fault("destroy", instance.gpu, instance.placement)
            self._state.write(i for i in existing if i.uuid != uuid)


class _StateFile:
    """The instances in a file: replaced as a whole, never changed in place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        self._new = path.with_name(path.name + ".new")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps all others, processes and threads, from changing the state meanwhile."""
        with self._named_errors("written"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A file of its own, since the state file is another one after each change.
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> tuple[MigInstance, ...]:
        """The instances, sorted by GPU and start."""
        with self._named_errors("read"):
            try:
                text = self._path.read_bytes()
            except FileNotFoundError:
                return ()
        try:
            found = _instances(json.loads(text))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MigError(
                f"the state of the emulated GPUs is damaged ({error})",
                where=str(self._path),
                hint="end what runs on them with `jigsaw-triton down`, then delete the file",
            ) from error
        return tuple(sorted(found, key=lambda i: (i.gpu, i.placement)))

    def write(self, instances: Iterable[MigInstance]) -> None:
        """Replaces the instances; only for who holds the lock."""
        records = [
            {
                "node": i.gpu.node,
                "index": i.gpu.index,
                "slice": i.placement.slice,
                "start": i.placement.start,
                "uuid": i.uuid,
            }
            for i in instances
        ]
        text = json.dumps({"version": STATE_VERSION, "instances": records}, indent=2) + "\n"
        with self._named_errors("written"):
            fresh = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fresh, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(fresh)
            self._new.replace(self._path)

    @contextmanager
    def _named_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MigError(
                f"the state of the emulated GPUs cannot be {done} ({error.strerror})",
                where=str(self._path),
                hint="it needs a folder that this user can write to, with room left",
            ) from error


def _instances(data: Any) -> list[MigInstance]:
    """What a state file says.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
        ValueError: Something is impossible.
    """
    if data["version"] != STATE_VERSION:
        raise ValueError(f"its version {data['version']!r} is not {STATE_VERSION}")
    found = [_instance(record) for record in data["instances"]]
    if len({i.uuid for i in found}) != len(found):
        raise ValueError("two instances have one UUID")
    return found


def _instance(record: Any) -> MigInstance:
    node, index, kind, start, uuid = (record[key] for key in ("node", "index", "slice", "start", "uuid"))
    if not all(isinstance(text, str) for text in (node, kind, uuid)):
        raise TypeError("node, slice and uuid are strings")
    if not all(type(number) is int for number in (index, start)):
        raise TypeError("index and start are integers")
    if kind.removesuffix(MEDIA) not in SLICES or not uuid.startswith("MIG-"):
        raise ValueError(f"there is no slice {kind!r} or no UUID {uuid!r}")
    return MigInstance(GpuId(node, index), Placement(start, kind), uuid)
