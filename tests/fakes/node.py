"""A node whose workers are entries of a dictionary, behind a real agent's API on a Unix socket."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from jigsaw_triton.agent.gateway_keeper import GatewayKeeper
from jigsaw_triton.agent.node_agent import NodeAgent
from jigsaw_triton.agent.run_records import RunRecords
from jigsaw_triton.agent.server import AgentServer
from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, Place, Worker, WorkerModel
from jigsaw_triton.controller.fleet.gateway_content import content_digests
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.wire import Json, NodeEvent
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, DeviceUse, Gpu, GpuId, Placement
from jigsaw_triton.servers.installation import Installation

NODE = "a"
GPU = GpuId(NODE, 0)
CLUSTER = Cluster((Gpu(GPU, CATALOG["A100-80GB"]),))
INSTALLATION = cast(Installation, SimpleNamespace(version="24.10", backends=frozenset({"python"})))


def model(name: str, weights: Path | bytes = b"weights") -> WorkerModel:
    """Returns a model with two files, one of which may be a user's."""
    content = Artifact(weights) if isinstance(weights, Path) else weights
    folder = ModelFolder(name, {"config.pbtxt": name.encode(), "1/model.onnx": content})
    return WorkerModel(folder, "g", "t", "v", 1, 8, f"digest of {name}")


def worker(name: str = "a-0-1g-0", *models: WorkerModel, start: int = 0) -> Worker:
    """Returns a worker of the node."""
    return Worker(name, models, Place(GPU, "A100-80GB", Placement(start, "1g")), 1000)


@dataclass
class FakeNode:
    """Workers without processes.

    Attributes:
        workers: Workers that run.
        begun: Operations that have begun, in order.
        log: Operations that were carried out, in order.
        gate: Event that operations wait for before they end.
        fails: Message with which the next operation fails; empty for none.
        lost: GPUs that are lost.
        joules: Energy of each GPU.
        image: Tritonserver of the deployment's image; None if there is no image.
    """

    workers: dict[str, Worker] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fails: str = ""
    lost: frozenset[GpuId] = frozenset()
    joules: Mapping[GpuId, float] = field(default_factory=dict)
    image: Installation | None = None
    _processes: dict[str, SimpleNamespace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def commands(self) -> SimpleNamespace:
        return SimpleNamespace(workers=INSTALLATION if self.image is None else self.image)

    def server(self, name: str) -> SimpleNamespace | None:
        return self._processes.get(name)

    def process(self, name: str) -> Process | None:
        return Process(self._processes[name].process.pid, "") if name in self._processes else None

    def die(self, name: str) -> None:
        """Ends a worker's process."""
        self._processes[name].process.returncode = 1

    async def serve_on(self, cluster: Cluster) -> None:
        await self._done("serve-on")
        if cluster.image is not None:
            self.image = cast(Installation, SimpleNamespace(version="25.08", backends=frozenset({"onnxruntime"})))

    async def adopt(self, cluster: Cluster, workers: Mapping[str, Worker], others: Any = ()) -> frozenset[str]:
        await self._done(f"adopt {' '.join(sorted(workers))}")
        ended = frozenset(workers.keys() - self._processes.keys())
        for name in ended:
            # Like an adopted server whose process was not found, it has no process id.
            self._processes[name] = SimpleNamespace(process=SimpleNamespace(pid=None, returncode=None), uuid="")
        return ended

    async def reconcile(self, name: str, wanted: Collection[str]) -> None:
        self.log.append(f"reconcile {name} {' '.join(sorted(wanted))}")

    async def survey(self, cluster: Cluster) -> Cluster:
        return replace(cluster, gpus=tuple(gpu for gpu in cluster.gpus if gpu.id not in self.lost))

    async def lost_gpus(self) -> frozenset[GpuId]:
        return self.lost

    async def use(self) -> Mapping[str, DeviceUse]:
        return {name: DeviceUse(10, 1000, 0.5) for name in self._processes}

    async def energy(self) -> Mapping[GpuId, float]:
        return self.joules

    async def bring_up(self, one: Worker) -> None:
        await self._done(f"bring up {one.name}")
        self.workers[one.name] = one
        # Our own id, because the agent looks for the start time of the process.
        self._processes[one.name] = SimpleNamespace(
            process=SimpleNamespace(pid=os.getpid(), returncode=None), uuid="MIG-1", reconciling=None
        )

    async def restart(self, one: Worker, delay_s: float) -> None:
        await self._done(f"restart {one.name}")
        self._processes[one.name].process = SimpleNamespace(pid=os.getpid(), returncode=None)
        self.workers[one.name] = one

    async def retire(self, name: str) -> None:
        await self._done(f"retire {name}")
        self.workers.pop(name, None)
        self._processes.pop(name, None)

    async def load(self, name: str, models: Sequence[WorkerModel]) -> None:
        await self._done(f"load {name} {' '.join(m.name for m in models)}")

    async def unload(self, name: str, models: Iterable[str]) -> None:
        await self._done(f"unload {name} {' '.join(models)}")

    async def kill(self, name: str, cause: str) -> None:
        await self._done(f"kill {name}: {cause}")

    def vanish(self, name: str) -> None:
        """Ends a worker so that the next agent finds no trace of it."""
        del self._processes[name]

    async def _done(self, what: str) -> None:
        self.begun.append(what)
        await self.gate.wait()
        self.log.append(what)
        if self.fails:
            raise ServerError(self.fails, where="the node", hint="look")


class CountingContents(Contents):
    """Files of models that count their transfers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.transfers = 0

    async def receive(self, digest: str, offset: int, chunks: AsyncIterator[bytes]) -> None:
        self.transfers += 1
        await super().receive(digest, offset, chunks)


@dataclass
class FakeGateway:
    """A standby gateway without processes, which carries out each order at once.

    Attributes:
        orders: Contents of the orders that were carried out.
        busy: True while it uses all models and generations.
        follows: False to carry out no order.
    """

    orders: list[Json | None] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    busy: bool = False
    follows: bool = True
    _wanted: Json | None = None
    _order: tuple[str, int] = ("", 0)
    _applied: tuple[str, int] = ("", 0)

    @property
    def exists(self) -> bool:
        return self._wanted is not None

    def digests(self) -> set[str]:
        return set(content_digests(self._wanted)) if self._wanted is not None else set()

    def takes(self, event: NodeEvent) -> bool:
        return False

    def steps(self) -> dict[str, Worker]:
        return {}

    async def start(self, ended: Any = ()) -> None:
        pass

    async def end(self) -> None:
        self._wanted = None

    def want(self, epoch: str, number: int, content: Json | None) -> None:
        self._order, self._wanted = (epoch, number), content
        self.catch_up()

    def catch_up(self) -> None:
        """Carries out the last order, if it follows."""
        if self.follows and self._applied != self._order:
            self.orders.append(self._wanted)
            self._applied = self._order

    def forget(self) -> None:
        """Forgets its orders, as an agent does that is restarted."""
        self._order = self._applied = ("", 0)

    async def status(self, after: Any = None, wait_s: float = 0.0) -> Json:
        if self._applied != after:
            await asyncio.sleep(wait_s)
        state = "absent" if self._wanted is None else "ready"
        return {"order": list(self._order), "applied": list(self._applied), "state": state, "pid": 1, "failure": ""}

    async def unused(self, models: Any, generations: Any, wait_s: float) -> bool:
        self.asked.append((models, generations))
        return not self.busy


@dataclass
class FakeMachine:
    """A machine with an agent, which can be restarted and cut off.

    Args:
        folder: Folder of the agent's files.
    """

    folder: Path
    node: FakeNode = field(default_factory=FakeNode)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    published: list[frozenset[str]] = field(default_factory=list)
    agent: NodeAgent | None = None
    ended: bool = False
    _server: AgentServer | None = None
    _journal: Journal | None = None
    _contents: CountingContents | None = None

    @property
    def transfers(self) -> int:
        """Number of files that were sent to the present agent."""
        assert self._contents is not None
        return self._contents.transfers

    @property
    def socket(self) -> Path:
        """Socket of the agent."""
        return self.folder / "agent.sock"

    @property
    def traces(self) -> Path:
        """Folder of the records of traced batches."""
        return self.folder / "traces"

    @property
    def _gateway(self) -> GatewayKeeper:
        return cast(GatewayKeeper, self.gateway)

    async def start(self) -> None:
        """Starts the agent."""
        self._journal = Journal(self.folder / "journal.sqlite")
        self._contents = CountingContents(self.folder / "contents")
        self.agent = NodeAgent(cast(LocalNode, self.node), self._journal, self._contents, self._publish, self._gateway)
        await self.agent.start()
        await self.reach()

    async def reach(self) -> None:
        """Lets the agent answer."""
        assert self.agent is not None and self._contents is not None
        self._server = AgentServer(
            self.socket,
            NODE,
            self.agent,
            self._gateway,
            self._contents,
            RunRecords(self.traces),
            end=self._end,
            grace_s=0.0,
        )
        await self._server.start()

    async def cut(self) -> None:
        """Lets the agent answer no more. What it does goes on."""
        assert self._server is not None
        await self._server.stop()
        self._server = None

    async def stop(self) -> None:
        """Ends the agent; the workers go on."""
        if self._server is not None:
            await self.cut()
        assert self._journal is not None
        self._journal.close()

    def _end(self) -> None:
        self.ended = True

    async def _publish(self, names: Collection[str]) -> None:
        self.published.append(frozenset(names))


@asynccontextmanager
async def fake_machine(folder: Path) -> AsyncIterator[FakeMachine]:
    """Provides a machine whose agent answers."""
    machine = FakeMachine(folder)
    await machine.start()
    try:
        yield machine
    finally:
        await machine.stop()
