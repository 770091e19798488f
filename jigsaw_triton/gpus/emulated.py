"""A MIG driver without GPUs: it applies MIG's rules to a state file that several processes share.

Like the real driver, it allows the same layouts, gives each new instance a new UUID, refuses to destroy an instance
that a process holds, and leaves others' instances alone. Unlike the real driver, it does not limit a process's compute.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from jigsaw_triton.errors import GpuLostError, InstanceInUseError, InstanceNotFoundError, MigError, PlacementError
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
    StageCallback,
)

STATE_VERSION = 1

Operation = Literal["create", "destroy"]

Fault = Callable[[Operation, GpuId, Placement], None]
"""Hook that is called before each change takes effect. The change fails with the exception that the hook raises."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Durations of changes. NVIDIA publishes no figures; 200 ms and 1000 ms are a guess for real boards."""

    create_ms: float = 0.0
    destroy_ms: float = 0.0


def no_fault(operation: Operation, gpu: GpuId, placement: Placement) -> None:
    """Lets every change succeed."""


class EmulatedMigDriver:
    """MIG driver whose state is a file.

    A change waits for its delay and then takes effect atomically, so a process that is killed at any moment leaves the
    state from before or after the change. Any number of processes and threads can use one file concurrently.

    Args:
        path: State file, readable by its owner only. The first instance creates it and its folder.
        gpus: GPUs on which instances can be created. Instances on other GPUs are reported, kept, and can be destroyed.
        delays: Durations of changes; zero by default.
        sleep: Function that sleeps for a number of seconds.
        holders_of: Function that returns the ids of the processes that hold an instance, given its UUID.
        fault: Hook that can make changes fail.
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
        """Returns all MIG instances in the file, sorted by GPU and start.

        Raises:
            MigError: The file is damaged or cannot be read.
        """
        return self._state.read().instances

    def survey(self, cluster: Cluster) -> Cluster:
        """Returns the cluster without GPUs that are lost. All others are as in the catalog.

        Raises:
            MigError: The file is damaged or cannot be read.
        """
        lost = self._state.read().lost
        return replace(cluster, gpus=tuple(gpu for gpu in cluster.gpus if gpu.id not in lost))

    def lose(self, gpu: GpuId) -> None:
        """Loses a GPU and its instances, like one that falls off the bus.

        Raises:
            MigError: The file is damaged or cannot be read or written.
        """
        with self._state.locked():
            board = self._state.read()
            rest = tuple(instance for instance in board.instances if instance.gpu != gpu)
            self._state.write(_State(rest, board.lost | {gpu}))

    def find(self, gpu: GpuId) -> None:
        """Brings a lost GPU back, without any instance.

        Raises:
            MigError: The file is damaged or cannot be read or written.
        """
        with self._state.locked():
            board = self._state.read()
            self._state.write(replace(board, lost=board.lost - {gpu}))

    def use(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """Returns nothing, since a slice of the processor is no physical part that could be measured."""
        return {}

    def holders(self, uuid: str) -> tuple[int, ...]:
        """Returns the ids of the processes that were started with the instance as their CUDA device, ascending."""
        return self._holders_of(uuid)

    def create(self, gpu: GpuId, placement: Placement, on_stage: StageCallback = lambda _: None) -> MigInstance:
        """Creates an instance at exactly this placement, with a new UUID.

        Args:
            gpu: GPU to create the instance on.
            placement: Placement on that GPU.
            on_stage: Callback for the stages of the creation.

        Raises:
            PlacementError: The instance would overlap another or exceed the profile's maximum, or there is no such GPU
                or placement.
            GpuLostError: The GPU is lost.
            MigError: The file is damaged or cannot be read or written.
        """
        board = self._boards.get(gpu)
        if board is None:
            known = ", ".join(str(g) for g in sorted(self._boards))
            raise PlacementError("there is no such GPU", where=str(gpu), hint=f"the cluster has {known}")
        self._sleep(self._delays.create_ms / 1000)
        with self._state.locked():
            state = self._state.read()
            if gpu in state.lost:
                raise GpuLostError("the GPU is lost", where=str(gpu))
            existing = state.instances
            present = [i.placement for i in existing if i.gpu == gpu]
            reason = fits(board, [*present, placement])
            if reason is not None:
                raise PlacementError(f"instance {placement} cannot be created: {reason}", where=str(gpu))
            self._fault("create", gpu, placement)
            on_stage(CreationStage.WHOLE)
            instance = MigInstance(gpu, placement, f"MIG-{uuid4()}")
            self._state.write(replace(state, instances=(*existing, instance)))
        return instance

    def destroy(self, uuid: str) -> None:
        """Destroys an instance.

        Raises:
            InstanceNotFoundError: There is no instance with this UUID.
            InstanceInUseError: A process holds the instance; the message contains its id.
            MigError: The file is damaged or cannot be read or written.
        """
        self._sleep(self._delays.destroy_ms / 1000)
        with self._state.locked():
            state = self._state.read()
            instance = next((i for i in state.instances if i.uuid == uuid), None)
            if instance is None:
                raise InstanceNotFoundError("there is no MIG instance with this UUID", where=uuid)
            pids = self._holders_of(uuid)
            if pids:
                raise InstanceInUseError(
                    f"{instance.placement} of {instance.gpu} is held by process {', '.join(map(str, pids))}",
                    where=uuid,
                    hint="stop the processes that use it first",
                )
            self._fault("destroy", instance.gpu, instance.placement)
            self._state.write(replace(state, instances=tuple(i for i in state.instances if i.uuid != uuid)))


@dataclass(frozen=True, slots=True)
class _State:
    """State of the emulated GPUs.

    Attributes:
        instances: MIG instances, sorted by GPU and start when they are read.
        lost: GPUs that are lost.
    """

    instances: tuple[MigInstance, ...] = ()
    lost: frozenset[GpuId] = frozenset()


class _StateFile:
    """File of MIG instances, which is replaced as a whole and never changed in place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        self._new = path.with_name(path.name + ".new")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock that keeps other processes and threads from changing the state."""
        with self._named_errors("written"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The lock has its own file, since each change replaces the state file.
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> _State:
        """Returns the state."""
        with self._named_errors("read"):
            try:
                text = self._path.read_bytes()
            except FileNotFoundError:
                return _State()
        try:
            data = json.loads(text)
            found, lost = _instances(data), frozenset(_gpu(record) for record in data.get("lost", ()))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MigError(
                f"the state of the emulated GPUs is damaged ({error})",
                where=str(self._path),
                hint="stop the deployment with `jigsaw-triton down`, then delete the file",
            ) from error
        return _State(tuple(sorted(found, key=lambda i: (i.gpu, i.placement))), lost)

    def write(self, state: _State) -> None:
        """Replaces the state. The caller must hold the lock."""
        records = [
            {
                "node": i.gpu.node,
                "index": i.gpu.index,
                "slice": i.placement.slice,
                "start": i.placement.start,
                "uuid": i.uuid,
            }
            for i in state.instances
        ]
        lost = [{"node": gpu.node, "index": gpu.index} for gpu in sorted(state.lost)]
        data = {"version": STATE_VERSION, "instances": records, **({"lost": lost} if lost else {})}
        text = json.dumps(data, indent=2) + "\n"
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
                hint="its folder must be writable by this user and have free space",
            ) from error


def _instances(data: Any) -> list[MigInstance]:
    """Parses the contents of a state file.

    Raises:
        KeyError: A field is missing.
        TypeError: A field has the wrong type.
        ValueError: A field has an impossible value.
    """
    if data["version"] != STATE_VERSION:
        raise ValueError(f"its version {data['version']!r} is not {STATE_VERSION}")
    found = [_instance(record) for record in data["instances"]]
    if len({i.uuid for i in found}) != len(found):
        raise ValueError("two instances have the same UUID")
    return found


def _gpu(record: Any) -> GpuId:
    node, index = record["node"], record["index"]
    if not isinstance(node, str) or type(index) is not int:
        raise TypeError("node is a string and index an integer")
    return GpuId(node, index)


def _instance(record: Any) -> MigInstance:
    gpu = _gpu(record)
    kind, start, uuid = (record[key] for key in ("slice", "start", "uuid"))
    if not isinstance(kind, str) or not isinstance(uuid, str):
        raise TypeError("slice and uuid are strings")
    if type(start) is not int:
        raise TypeError("start is an integer")
    if kind.removesuffix(MEDIA) not in SLICES or not uuid.startswith("MIG-"):
        raise ValueError(f"there is no slice {kind!r} or no UUID {uuid!r}")
    return MigInstance(gpu, Placement(start, kind), uuid)
