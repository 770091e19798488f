"""MIG instances of a deployment. The journal identifies them at every moment, even if the process dies."""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TypeVar

from jigsaw_triton.controller.fleet.ownership import ours
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import (
    GpuLostError,
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
    """Creates and destroys MIG instances, and never touches those of others.

    Calls block. Any thread may make them.

    Args:
        journal: Journal that records our instances, starting before each creation.
        driver: MIG driver.
        sleep: Function that sleeps for a number of seconds.
    """

    def __init__(self, journal: Journal, driver: MigDriver, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._journal = journal
        self._driver = driver
        self._sleep = sleep
        self._creating: set[_Place] = set()
        self._hung: set[_Place] = set()
        """Placements of creations that timed out and may still take effect."""

        self._lock = threading.Lock()

    def create(self, gpu: GpuId, placement: Placement) -> MigInstance:
        """Creates an instance at exactly this placement.

        Raises:
            PlacementError: The GPU's current layout does not allow it.
            StateError: The journal cannot be written. Nothing is left behind.
            MigError: The driver fails otherwise. If it leaves a half-made instance, the next creation on this GPU or
                the next start of a controller removes it.
        """
        self._settle(gpu)
        if any((i.gpu, i.placement) == (gpu, placement) for i in self._driver.instances()):
            # Check before the journal records the placement as ours.
            raise PlacementError(f"no instance {placement} can be created: there is one already", where=str(gpu))
        with self._lock:
            self._creating.add((gpu, placement))
        try:
            return self._create(gpu, placement)
        finally:
            with self._lock:
                self._creating.discard((gpu, placement))

    def destroy(self, uuid: str) -> None:
        """Destroys one of our instances, and retries for a few seconds while a process holds it.

        Monitoring agents hold an instance for a moment, and so does a process that was just killed. An instance that no
        longer exists is not an error; one on a lost GPU does not exist.

        Raises:
            InstanceInUseError: A process still holds the instance after the last retry.
            MigError: The driver refuses for another reason.
        """
        self._journal.begin_destruction(uuid)
        self._retried(lambda: self._destroy(uuid))
        self._journal.forget_instance(uuid)

    def rearrange(self, changes: Iterable[Rearrangement]) -> None:
        """Changes the layouts of GPUs without touching instances that stay.

        Raises:
            MigError: A change failed. The changes before it remain in effect; recompute the rest and call again.
        """
        todo = tuple(changes)
        for change in todo:
            for instance in change.destroy:
                self.destroy(instance.uuid)
        for change in todo:
            for placement in change.create:
                self.create(change.gpu, placement)

    def recover(self) -> None:
        """Removes instances that a process was creating or destroying when it died.

        Raises:
            InstanceInUseError: A process holds one of these instances.
            MigError: The driver refuses for another reason.
        """
        for gpu in sorted({gpu for gpu, _ in self._journal.creations()}):
            self._settle(gpu)
        for uuid in self._journal.destructions():
            self.destroy(uuid)
        missing = self._missing()
        # The driver does not read its list atomically. An instance is gone only if two lists lack it.
        for uuid in missing & self._missing() if missing else ():
            self._journal.forget_instance(uuid)

    def end_all(self, keep: Collection[_Place] = ()) -> int:
        """Destroys our instances, whole or half made. No server may use them any more.

        Args:
            keep: Places of the instances that stay.

        Returns:
            Number of instances that were destroyed.

        Raises:
            InstanceInUseError: A process outside the deployment holds one of them.
            MigError: The driver refuses for another reason.
        """
        ended = 0
        kept = {i.uuid for i in self._journal.instances() if (i.gpu, i.placement) in keep}
        for instance in ours(self._driver.instances(), self._journal):
            if instance.uuid not in kept:
                ended += 1
                self.destroy(instance.uuid)
        for instance in self._journal.instances():
            if (instance.gpu, instance.placement) not in keep:
                # The driver's list lacks these. Most of them no longer exist.
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
            instance = self._retried(attempt)
        except PlacementError:
            # Nothing was created, so any instance at this placement belongs to others.
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
        """Removes instances that unfinished creations have left on a GPU."""
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
        """Returns the UUIDs of our instances that the driver does not list."""
        there = {instance.uuid for instance in self._driver.instances()}
        # A whole GPU without MIG is recorded like an instance, but the driver lists only MIG instances.
        return {i.uuid for i in self._journal.instances() if i.uuid not in there and not i.uuid.startswith("GPU-")}

    def _destroy(self, uuid: str) -> None:
        """Destroys an instance, or what an interrupted destruction has left of it."""
        with suppress(InstanceNotFoundError, GpuLostError):
            return self._driver.destroy(uuid)
        # An interrupted destruction leaves a half-made instance under another UUID.
        known = next((i for i in self._journal.instances() if i.uuid == uuid), None)
        for half in self._at(known.gpu, known.placement) if known is not None else ():
            if half.half_made:
                self._driver.destroy(half.uuid)

    def _made(self, gpu: GpuId, placement: Placement) -> list[MigInstance]:
        """Returns the instances that our unfinished creation may have left at a placement."""
        stage = self._journal.creations().get((gpu, placement), CreationStage.NOTED)
        return [instance for instance in self._at(gpu, placement) if stage.may_have_made(instance)]

    def _at(self, gpu: GpuId, placement: Placement) -> list[MigInstance]:
        return [i for i in self._driver.instances() if (i.gpu, i.placement) == (gpu, placement)]

    def _retried(self, call: Callable[[], T]) -> T:
        for _ in range(IN_USE_TRIES - 1):
            with suppress(InstanceInUseError):
                return call()
            self._sleep(_IN_USE_WAIT_S)
        return call()
