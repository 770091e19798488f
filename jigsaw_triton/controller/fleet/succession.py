"""Succession of controllers: one with an old copy of its state folder follows a later one that has ended."""

import asyncio
from collections.abc import Awaitable, Callable

from jigsaw_triton.controller.fleet.agent_calls import AgentCalls
from jigsaw_triton.controller.fleet.wire import Json
from jigsaw_triton.controller.persistence.epoch import number_of
from jigsaw_triton.errors import StateError

COMMANDED_S = 10.0
"""Seconds after its last command for which another controller counts as running. It commands every second."""


async def outrank(
    node: str,
    described: Json,
    calls: AgentCalls,
    describe: Callable[[], Awaitable[Json]],
    surpass: Callable[[int], Awaitable[None]],
) -> None:
    """Begins a later epoch than that of another controller of this deployment, once it has ended.

    The agent of a node obeys the controller with the highest epoch of the deployment. A controller with an old copy of
    the state folder begins an epoch that is over, and would be refused.

    Args:
        node: Name of the node, for messages.
        described: Last description of the node by its agent.
        calls: Client of the agent, which names deployment and epoch of this controller.
        describe: Asks the agent again.
        surpass: Begins an epoch of this controller whose number is above that one.

    Raises:
        StateError: The other controller commands the node now.
    """
    epoch = described.get("epoch", "")
    own = calls.epoch()
    if described.get("deployment") != calls.deployment or epoch == own or number_of(epoch) < number_of(own):
        return
    if not has_ended(described):
        await asyncio.sleep(COMMANDED_S - described["commanded_s"])
        described = await describe()
    if not has_ended(described):
        raise StateError(
            f"another controller of this deployment, with a copy of its state folder, commands the node in epoch "
            f"{described['epoch']}",
            where=f"node {node}",
            hint="end the other controller, and start this one again",
        )
    await surpass(number_of(described["epoch"]))


def has_ended(described: Json) -> bool:
    """Returns true if no controller has commanded a node for a while, given its last description."""
    return float(described.get("commanded_s", 0.0)) >= COMMANDED_S


def is_fenced(described: Json, calls: AgentCalls) -> bool:
    """Returns true if a controller on another machine has replaced this one, given a node's last description."""
    return number_of(described.get("fence", "")) > number_of(calls.epoch())
