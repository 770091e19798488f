"""Agents that Ray starts: where they are, and when they are placed again."""

from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import placing
from jigsaw_triton.errors import InputError, JigsawError, ServerError
from jigsaw_triton.gpus.model import Agents, RayCluster
from jigsaw_triton.servers.engines.placement import Placed
from tests.controller.fleet.nodes import BOTH, A, World, run
from tests.fakes.node import NODE, model, worker
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("one_try")

BY_RAY = replace(A, agents=Agents(((NODE, ""),), "", RayCluster()))
BOTH_BY_RAY = replace(BOTH, agents=Agents(((NODE, ""), ("b", "")), "", RayCluster()))


class FakeEngine:
    """Ray, which has started the agents of these nodes."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[set[str]] = []
        self.trouble: list[Exception] = []
        self.left: tuple[JigsawError, ...] = ()
        self.removed = False

    async def certificates(self, agents: Agents) -> Path:
        return Path("/own/controller")

    async def place(self, agents: Agents, nodes: set[str]) -> Placed:
        self.asked.append(set(nodes))
        errors = {node: InputError("no raylet") for node in nodes if node not in self.addresses}
        return Placed({node: self.addresses[node] for node in nodes if node in self.addresses}, errors)

    async def outdated(self) -> set[str]:
        if self.trouble:
            raise self.trouble.pop()
        return set()

    async def remove(self) -> tuple[JigsawError, ...]:
        self.removed = True
        return self.left


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Ray, which has started the agent of node a."""
    engine = FakeEngine(a="10.0.0.1:7440")
    monkeypatch.setattr(placing, "RayEngine", lambda *_: engine)
    return engine


def test_ray_starts_agents_once_and_has_their_addresses(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        await nodes.serve_on(BY_RAY)
        assert engine.asked == [{NODE}]
        assert (world.side.addresses, nodes.addresses) == ({NODE: "10.0.0.1:7440"},) * 2
        with pytest.raises(InputError, match="no raylet"):
            await nodes.serve_on(BOTH_BY_RAY)
        await nodes.serve_on(BY_RAY)
        assert world.side.nodes == {NODE}

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_the_next_controller_needs_no_ray(run_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(BY_RAY)
        await world.bring_up(first, one)
        # The first controller has died, and so ends no agent.
        monkeypatch.setattr(first, "_placing", None)
        second = world.controller()
        await second.adopt(BY_RAY, {one.name: one})
        await second.serve_on(BY_RAY)
        assert engine.asked == [{NODE}]
        assert second.addresses == {NODE: "10.0.0.1:7440"}

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_an_agent_that_does_not_answer_is_placed_again_and_followed_to_its_new_address(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    monkeypatch.setattr(placing, "_PLACE_S", 0.02)
    monkeypatch.setattr(placing, "AWAY_S", 0.2)

    async def test(world: World) -> None:
        await world.controller().serve_on(BY_RAY)
        engine.trouble = [OSError("no more processes")]
        await until(lambda: not engine.trouble)
        await world.machine.cut()
        await until(lambda: len(engine.asked) > 1)
        engine.addresses = {NODE: "10.0.0.9:7440"}
        await until(lambda: world.side.addresses == {NODE: "10.0.0.9:7440"})
        await world.machine.reach()

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_an_agent_of_a_node_that_has_left_the_cluster_is_not_placed_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    engine.addresses["b"] = "10.0.0.2:7440"
    monkeypatch.setattr(placing, "_PLACE_S", 0.02)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        # Node b has left the cluster while its machine was away.
        agents = nodes._connection.agents
        assert agents is not None
        await nodes._connect(replace(agents, addresses=(*agents.addresses, ("b", "10.0.0.2:7440"))))
        monkeypatch.setattr(placing, "AWAY_S", 0.0)
        await until(lambda: len(engine.asked) > 2)
        assert engine.asked == [{NODE}] * len(engine.asked)

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_agents_that_have_started_end_although_another_one_has_not(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        with pytest.raises(InputError, match="no raylet"):
            await nodes.serve_on(BOTH_BY_RAY)
        await nodes.stop()
        await until(lambda: world.machine.ended)

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_the_end_of_a_deployment_ends_the_agents_that_ray_has_started(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        engine.left = (ServerError("the cluster does not answer", where="Ray"),)
        await nodes.stop()
        assert engine.removed
        await until(lambda: world.machine.ended)
        texts = {event.text for event in world.recorded()}
        assert "not everything has ended: Ray: the cluster does not answer" in texts

    run(run_dir, monkeypatch, test)
