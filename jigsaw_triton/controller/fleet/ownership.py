"""Ownership of MIG instances: ours are those that the journal accounts for. All others are left alone."""

from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import MigInstance


def ours(instances: tuple[MigInstance, ...], journal: JournalReader) -> tuple[MigInstance, ...]:
    """Returns the instances that the journal accounts for.

    These are instances whose UUID it records, instances that an unfinished creation may have left at its placement,
    given the stage that it reached, and half-made instances that an unfinished destruction has left.
    """
    kept = {instance.uuid: instance for instance in journal.instances()}
    begun = journal.creations()
    ending = {(kept[uuid].gpu, kept[uuid].placement) for uuid in journal.destructions() if uuid in kept}

    def is_ours(instance: MigInstance) -> bool:
        place = (instance.gpu, instance.placement)
        made = place in begun and begun[place].may_have_made(instance)
        return instance.uuid in kept or made or (instance.half_made and place in ending)

    return tuple(filter(is_ours, instances))


def foreign_instances(driver: MigDriver, journal: JournalReader) -> tuple[MigInstance, ...]:
    """Returns the instances that a driver reports and that are not ours. Blocks.

    Args:
        driver: MIG driver.
        journal: Journal of the deployment. Instances that a running controller creates or destroys meanwhile are ours.
    """
    before = {instance.uuid for instance in journal.instances()}
    there = driver.instances()
    own = {instance.uuid for instance in ours(there, journal)} | before
    return tuple(instance for instance in there if instance.uuid not in own)
