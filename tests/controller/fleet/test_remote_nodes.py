"""The nodes of a deployment that have agents, over the time in which a controller plans again and again."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from jigsaw_triton import __version__
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import remote_nodes
from jigsaw_triton.controller.fleet.agent_calls import AwayError
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.wire import WIRE_VERSION, Json
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.model import Agents, Cluster
from tests.fakes.node import CLUSTER as ONE_NODE

NOW_S = 1.8e9
CLUSTER = Cluster(ONE_NODE.gpus, agents=Agents((("a", "127.0.0.1:1"), ("b", "127.0.0.1:2")), "certificates"))


class FakeRemoteNode:
    """A node whose agent answers, or does not."""

    def __init__(self, name: str, *, release: str = __version__) -> None:
        self.name = name
        self.away = False
        self.clusters = 0
        self._release = release

    async def describe(self) -> Json:
        if self.away:
            raise AwayError("the agent does not answer (status 503)", where=f"node {self.name}", hint="look there")
        said = {"name": self.name, "release": self._release, "wire": WIRE_VERSION, "tritonserver": "24.10"}
        return {**said, "backends": ["python"], "utc_s": NOW_S}

    async def serve_on(self, cluster: Cluster) -> None:
        self.clusters += 1

    async def adopt(self, cluster: Cluster, workers: object) -> None:
        pass


class World:
    """Two nodes as their controller sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[e.Event] = []
        self.now_s = NOW_S
        self.a, self.b = FakeRemoteNode("a"), FakeRemoteNode("b", release="9.9")
        paths = cast(Paths, SimpleNamespace(state=Path("/nowhere")))
        self.nodes = RemoteNodes(paths, cast(Journal, None), self.events.append)
        monkeypatch.setattr(self.nodes, "_connect", self._connect)
        monkeypatch.setattr(remote_nodes, "members", lambda _: ())
        monkeypatch.setattr(remote_nodes, "time", SimpleNamespace(time=lambda: self.now_s, monotonic=time.monotonic))

    async def _connect(self, *_: object) -> None:
        self.nodes._nodes = {"a": self.a, "b": self.b}  # type: ignore[dict-item]


def test_agents_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)

    async def main() -> None:
        await world.nodes.serve_on(CLUSTER)
        world.now_s += 3600
        await world.nodes.serve_on(CLUSTER)

    asyncio.run(main())
    assert world.a.clusters == 2
    assert [str(event).count("node b has jigsaw-triton 9.9") for event in world.events] == [1]


def test_a_node_that_the_next_controller_finds_lost_keeps_it_from_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)

    async def main() -> None:
        world.b.away = True
        await world.nodes.adopt(CLUSTER, {})
        await world.nodes.serve_on(CLUSTER)
        assert world.a.clusters == 1 and world.events == []
        world.b.away = False
        await world.nodes.serve_on(CLUSTER)

    asyncio.run(main())
    assert "node b has jigsaw-triton 9.9" in str(world.events)


def test_a_new_node_that_does_not_answer_is_named_with_the_reason_that_the_transport_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)

    answers = iter(({}, {"a": "", "b": ""}, {"a": "", "b": "shows a certificate of another node"}))

    async def health() -> dict[str, str]:
        return next(answers)

    async def main() -> None:
        world.b.away = True
        await world._connect()
        world.nodes._agents = CLUSTER.agents
        world.nodes._side = SimpleNamespace(health=health)  # type: ignore[assignment]
        await world.nodes._describe(cast(RemoteNode, world.b))

    with pytest.raises(AwayError, match=r"127\.0\.0\.1:2 shows a certificate of another node") as caught:
        asyncio.run(main())
    assert (caught.value.where, caught.value.hint) == ("node b", "look there")
