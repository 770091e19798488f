"""Whose MIG instances are: ours are those that the journal knows of, all others are left alone."""

from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import MigInstance


def ours(instances: tuple[MigInstance, ...], journal: Journal) -> tuple[MigInstance, ...]:
    """Those that the journal knows of.

    By their UUID; at a noted place what a creation of ours may have left, as far as it got; and what a destruction of
    ours has left half made.
    """
    kept = {instance.uuid: instance for instance in journal.instances()}
    begun = journal.creations()
    ending = {(kept[uuid].gpu, kept[uuid].placement) for uuid in journal.destructions() if uuid in kept}

    def is_ours(instance: MigInstance) -> bool:
        place = (instance.gpu, instance.placement)
        made = place in begun and begun[place].may_have_made(instance)
        return instance.uuid in kept or made or (instance.half_made and place in ending)

    return tuple(filter(is_ours, instances))


def foreign_instances(driver: MigDriver, journal: Journal) -> tuple[MigInstance, ...]:
    """What a driver reports that is not ours. Blocks.

    Args:
        driver: Of MIG.
        journal: Of the deployment, whose controller may run: what it creates or destroys meanwhile is ours.
    """
    before = {instance.uuid for instance in journal.instances()}
    there = driver.instances()
    own = {instance.uuid for instance in ours(there, journal)} | before
    return tuple(instance for instance in there if instance.uuid not in own)
