"""MIG instances of a deployment, made and ended so that whenever the process dies the journal tells which are ours."""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TypeVar

from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.ownership import ours
from jigsaw_triton.errors import (
    InstanceInUseError,
    InstanceNotFoundError,
    MigError,
    MigTimeoutError,
    PlacementError,
    StateError,
)
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement
from jigsaw_triton.gpus.rearrangement import Rearrangement

IN_USE_TRIES = 25
_IN_USE_WAIT_S = 0.2

T = TypeVar("T")
_Place = tuple[GpuId, Placement]


class Instances:
    """Creates and destroys; what others made is never touched. Calls block; any thread may make them.

    Args:
        journal: Knows what is ours, also from before it exists.
        driver: Of MIG.
        sleep: Takes seconds.
    """

    def __init__(self, journal: Journal, driver: MigDriver, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._journal = journal
        self._driver = driver
        self._sleep = sleep
        self._creating: set[_Place] = set()
        self._hung: set[_Place] = set()
        """Where a creation was given up that may still take effect."""

        self._lock = threading.Lock()

    def create(self, gpu: GpuId, placement: Placement) -> MigInstance:
        """Creates an instance of ours exactly there.

        Raises:
            PlacementError: It is not possible as the GPU stands.
            StateError: The journal cannot be written; nothing is left.
            MigError: Anything else. Where something was left half made, the next creation on the GPU, or the next
                start, removes it.
        """
        self._settle(gpu)
        if any((i.gpu, i.placement) == (gpu, placement) for i in self._driver.instances()):
            # Before it is noted as ours.
            raise PlacementError(f"no instance {placement} can be created: there is one already", where=str(gpu))
        with self._lock:
            self._creating.add((gpu, placement))
        try:
            return self._create(gpu, placement)
        finally:
            with self._lock:
                self._creating.discard((gpu, placement))

    def destroy(self, uuid: str) -> None:
        """Destroys an instance of ours, giving whoever holds it a few seconds to let go; one that is gone is gone.

        Monitoring agents hold an instance for a moment, and so does a process that was just killed.

        Raises:
            InstanceInUseError: It was still held at the end.
            MigError: The driver refused otherwise.
        """
        self._journal.begin_destruction(uuid)
        self._patiently(lambda: self._destroy(uuid))
        self._journal.forget_instance(uuid)

    def rearrange(self, changes: Iterable[Rearrangement]) -> None:
        """Carries out changes of layouts; instances that stay are not touched.

        Raises:
            MigError: A change failed; those before it are made, and the same call with fresh changes goes on.
        """
        todo = tuple(changes)
        for change in todo:
            for instance in change.destroy:
                self.destroy(instance.uuid)
        for change in todo:
            for placement in change.create:
                self.create(change.gpu, placement)

    def recover(self) -> None:
        """Brings to an end what a process that died was about to do: what was half made is removed.

        Raises:
            InstanceInUseError: Something holds what has to go.
            MigError: The driver refused otherwise.
        """
        for gpu in sorted({gpu for gpu, _ in self._journal.creations()}):
            self._settle(gpu)
        for uuid in self._journal.destructions():
            self.destroy(uuid)
        missing = self._missing()
        # A list is not read in one piece: what is gone lacks in two of them.
        for uuid in missing & self._missing() if missing else ():
            self._journal.forget_instance(uuid)

    def end_all(self, keep: Collection[_Place] = ()) -> int:
        """Destroys all instances of ours, whole or half made; nobody may use them any more.

        Args:
            keep: Places of the instances that stay.

        Returns:
            Number of instances that were destroyed.

        Raises:
            InstanceInUseError: Somebody else's process holds one.
            MigError: The driver refused otherwise.
        """
        ended = 0
        for instance in ours(self._driver.instances(), self._journal):
            if instance.half_made or (instance.gpu, instance.placement) not in keep:
                ended += 1
                self.destroy(instance.uuid)
        for instance in self._journal.instances():
            if (instance.gpu, instance.placement) not in keep:
                # That the list lacks: mostly it is gone.
                self.destroy(instance.uuid)
        for gpu, placement in self._journal.creations():
            self._journal.end_creation(gpu, placement)
        return ended

    def _create(self, gpu: GpuId, placement: Placement) -> MigInstance:
        self._journal.begin_creation(gpu, placement)
        left: list[str] = []

        def attempt() -> MigInstance:
            while left:
                self._destroy(left[-1])
                left.pop()
            try:
                return self._driver.create(gpu, placement, lambda stage: self._journal.reach(gpu, placement, stage))
            except (PlacementError, MigTimeoutError):
                raise
            except MigError:
                left.extend(i.uuid for i in self._made(gpu, placement))
                if not left:
                    self._journal.reach(gpu, placement, CreationStage.NOTED)
                raise

        try:
            instance = self._patiently(attempt)
        except PlacementError:
            # Nothing was made: what stands there is somebody else's.
            self._journal.end_creation(gpu, placement)
            raise
        except MigTimeoutError:
            self._hung.add((gpu, placement))
            raise
        except MigError:
            with suppress(MigError):
                if not self._made(gpu, placement):
                    self._journal.end_creation(gpu, placement)
            raise
        try:
            self._journal.keep_instance(instance)
        except StateError:
            self.destroy(instance.uuid)
            raise
        finally:
            self._journal.end_creation(gpu, placement)
        return instance

    def _settle(self, gpu: GpuId) -> None:
        """Removes what earlier creations on a GPU may have left there."""
        with self._lock:
            open_ends = [place for place in self._journal.creations() if place not in self._creating]
        for place in open_ends:
            if place[0] != gpu:
                continue
            left = self._made(*place)
            for instance in left:
                self.destroy(instance.uuid)
            if left or place not in self._hung:
                self._hung.discard(place)
                self._journal.end_creation(*place)

    def _missing(self) -> set[str]:
        """UUIDs of ours that the driver does not list."""
        there = {instance.uuid for instance in self._driver.instances()}
        # A GPU without MIG is no instance that could be listed.
        return {i.uuid for i in self._journal.instances() if i.uuid not in there and not i.uuid.startswith("GPU-")}

    def _destroy(self, uuid: str) -> None:
        """Destroys what is left of an instance."""
        with suppress(InstanceNotFoundError):
            return self._driver.destroy(uuid)
        # A destruction that broke off has left it half made, under another name.
        known = next((i for i in self._journal.instances() if i.uuid == uuid), None)
        for half in self._at(known.gpu, known.placement) if known is not None else ():
            if half.half_made:
                self._driver.destroy(half.uuid)

    def _made(self, gpu: GpuId, placement: Placement) -> list[MigInstance]:
        """What a creation of ours whose end was not noted has left at its place."""
        stage = self._journal.creations().get((gpu, placement), CreationStage.NOTED)
        return [instance for instance in self._at(gpu, placement) if stage.may_have_made(instance)]

    def _at(self, gpu: GpuId, placement: Placement) -> list[MigInstance]:
        return [i for i in self._driver.instances() if (i.gpu, i.placement) == (gpu, placement)]

    def _patiently(self, call: Callable[[], T]) -> T:
        for _ in range(IN_USE_TRIES - 1):
            with suppress(InstanceInUseError):
                return call()
            self._sleep(_IN_USE_WAIT_S)
        return call()
