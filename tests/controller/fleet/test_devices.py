"""MIG instances that disappear from under their workers."""

import asyncio
from dataclasses import dataclass, field
from typing import cast

from jigsaw_triton.controller.fleet.devices import Devices
from jigsaw_triton.controller.fleet.mig_pool import MigPool
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.gpus.model import Cluster

CLUSTER = Cluster(())


@dataclass
class Running:
    """A server on an instance."""

    uuid: str
    killed: list[str] = field(default_factory=list)

    def kill(self, cause: str) -> None:
        self.killed.append(cause)


@dataclass
class Pool:
    """Instances of workers, by name."""

    uuids: dict[str, str]

    def uuid(self, worker: str) -> str:
        return self.uuids.get(worker, "")

    async def forget(self, worker: str, uuid: str) -> None:
        self.uuids = {name: known for name, known in self.uuids.items() if known != uuid}


class NoInstances:
    """A driver that knows no instance."""

    def survey(self, cluster: Cluster) -> Cluster:
        return cluster

    def instances(self) -> list[object]:
        return []


def surveys(pool: Pool, servers: dict[str, Running], count: int) -> None:
    async def run() -> None:
        devices = Devices(cast(dict[str, Server], servers), cast(MigPool, pool))
        for _ in range(count):
            await devices.lost(cast(MigDriver, NoInstances()), CLUSTER)

    asyncio.run(run())


def test_all_workers_of_a_lost_instance_are_killed_once() -> None:
    servers = {"one": Running("MIG-1"), "two": Running("MIG-1")}
    surveys(Pool({"one": "MIG-1", "two": "MIG-1"}), servers, 5)
    assert [server.killed for server in servers.values()] == [["its MIG instance no longer exists"]] * 2


def test_one_survey_does_not_make_an_instance_lost() -> None:
    servers = {"one": Running("MIG-1")}
    surveys(Pool({"one": "MIG-1"}), servers, 1)
    assert servers["one"].killed == []


def test_the_new_instance_of_a_worker_in_restart_stays() -> None:
    # The dead server stays registered until the next one runs on the new instance.
    pool = Pool({"one": "MIG-2"})
    surveys(pool, {"one": Running("MIG-1")}, 5)
    assert pool.uuids == {"one": "MIG-2"}
