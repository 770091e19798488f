"""Whose MIG instances are: ours are those that the journal knows of, all others are left alone."""

from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import MigInstance


def ours(instances: tuple[MigInstance, ...], journal: Journal) -> tuple[MigInstance, ...]:
    """Those that the journal knows of, also from before they existed."""
    kept = {instance.uuid for instance in journal.instances()}
    begun = journal.creations()
    return tuple(i for i in instances if i.uuid in kept or (i.gpu, i.placement) in begun)


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
