"""GPUs that fall off the bus, and MIG instances that disappear from under their workers."""

import asyncio
from collections.abc import Mapping

from jigsaw_triton.controller.fleet.mig_pool import MigPool
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import Cluster, GpuId

_MIG = "MIG-"
"""Prefix of the UUID of a MIG instance; that of a whole GPU has another one."""


class Devices:
    """Compares what the driver reports with what the servers run on.

    Args:
        servers: Running servers by name, which the fleet changes.
        pool: MIG instances of the workers.
    """

    def __init__(self, servers: Mapping[str, Server], pool: MigPool) -> None:
        self._servers = servers
        self._pool = pool
        self._absent: set[tuple[str, str]] = set()

    async def lost(self, driver: MigDriver, cluster: Cluster) -> frozenset[GpuId]:
        """Returns the GPUs of a cluster that are lost. Kills workers whose MIG instance no longer exists.

        Raises:
            MigError: The driver does not answer.
        """
        surveyed = await asyncio.to_thread(driver.survey, cluster)
        there = {instance.uuid for instance in await asyncio.to_thread(driver.instances)}
        absent = {(n, s.uuid) for n, s in self._servers.items() if s.uuid.startswith(_MIG) and s.uuid not in there}
        # The driver does not read its list atomically. An instance is gone only if two lists lack it. The
        # dead server of a worker in restart keeps the UUID of its lost instance until another one runs.
        gone = [(name, uuid) for name, uuid in sorted(absent & self._absent) if self._pool.uuid(name) == uuid]
        for name, uuid in gone:
            await self._pool.forget(name, uuid)
            if (server := self._servers.get(name)) is not None and server.uuid == uuid:
                server.kill("its MIG instance no longer exists")
        self._absent = absent
        return frozenset(gpu.id for gpu in cluster.gpus) - {gpu.id for gpu in surveyed.gpus}
