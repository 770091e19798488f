"""A node as a controller sees it, behind the agent of a `FakeMachine`. The node counts as lost soon."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import agent_orders, following, remote_node
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.succession import ReplacedError, Succession
from jigsaw_triton.controller.fleet.wire import NodeEvent
from tests.fakes.node import CLUSTER, NODE, FakeMachine, fake_machine

W = "a-0-1g-0"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Remote:
    """A controller's side of a machine.

    Attributes:
        machine: Machine with the agent.
        events: Events that the controller has got.
        linked: Workers that can be called since the last change.
        gave_way: Reasons for which controllers have given way.
        reachable: True if the workers can be called although the agent does not answer.
        node: The node as the first controller sees it.
    """

    machine: FakeMachine
    events: list[NodeEvent] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    gave_way: list[str] = field(default_factory=list)
    reachable: bool = False

    def __post_init__(self) -> None:
        self.node = self.controller("1.a")

    def controller(self, epoch: str, deployment: str = "d", *fences: str) -> RemoteNode:
        """Returns the node as another controller sees it, which has set these fences."""
        own = [epoch]

        async def surpass(number: int) -> None:
            own.append(f"{number + 1}.{epoch}")

        def give_way(error: ReplacedError) -> None:
            self.gave_way.append(str(error))

        succession = Succession(deployment, lambda: own[-1], lambda: fences, surpass, give_way)
        calls = AgentCalls(NODE, self.machine.socket, deployment, succession.epoch)
        return RemoteNode(NODE, calls, _digest, self.events.append, self._is_reachable, self._changed, succession)

    async def _is_reachable(self) -> bool:
        return self.reachable

    async def _changed(self) -> None:
        self.linked = set(self.node.running)

    def said(self, text: str) -> bool:
        return any(text in str(event) for event in self.events)


def run(folder: Path, test: Callable[[Remote], Awaitable[None]]) -> None:
    """Runs a test with a machine that serves on its GPU."""

    async def main() -> None:
        async with fake_machine(folder) as machine:
            remote = Remote(machine)
            await remote.node.serve_on(CLUSTER)
            try:
                await test(remote)
            finally:
                await remote.node.stop()

    with pytest.MonkeyPatch.context() as patch:
        _lose_soon(patch)
        asyncio.run(main())


def _lose_soon(patch: pytest.MonkeyPatch) -> None:
    """Makes a node count as lost sooner."""
    for module in (remote_node, following):
        patch.setattr(module, "AWAY_S", 1.0)
        patch.setattr(module, "PULSE_S", 0.05)
    for module in (remote_node, following, agent_orders):
        patch.setattr(module, "RETRY_S", 0.02)
    patch.setattr(agent_orders, "_OUTCOME_S", 0.1)
