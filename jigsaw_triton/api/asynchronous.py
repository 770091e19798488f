"""Deployments for asyncio: each call runs in a thread, so that it does not block the event loop."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from jigsaw_triton.api.deploying import deploy
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.controller.persistence.records import JournalEvent, Revision
from jigsaw_triton.planner.domain.plan import Plan

if TYPE_CHECKING:
    from jigsaw_triton.api.files import PathLike
    from jigsaw_triton.api.planning import Graphs


class AsyncDeployment:
    """A `Deployment` whose methods are coroutines. `deploy_async` returns one.

    As an asynchronous context manager it takes the deployment down at the end of the block.

    Args:
        state: Folder of the deployment; see `Deployment`.

    Examples:
        >>> import asyncio
        >>> import jigsaw_triton as jt
        >>> asyncio.run(jt.AsyncDeployment("/nowhere").events())
        ()
    """

    def __init__(self, state: "PathLike | None" = None) -> None:
        self._deployment = Deployment(state)

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """Returns the asynchronous form of a deployment."""
        found = cls(deployment.paths.state)
        found._deployment = deployment
        return found

    def __repr__(self) -> str:
        return f"Async{self._deployment!r}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down(missing_ok=True)

    async def status(self) -> dict[str, Any]:
        """See `Deployment.status`."""
        return await asyncio.to_thread(self._deployment.status)

    async def plan(self) -> Plan:
        """See `Deployment.plan`."""
        return await asyncio.to_thread(self._deployment.plan)

    async def events(self, *, after: int = 0, limit: int = 1000) -> tuple[JournalEvent, ...]:
        """See `Deployment.events`."""
        return await asyncio.to_thread(self._deployment.events, after=after, limit=limit)

    async def wait(self, state: Literal["ready", "stopped"] = "ready", *, timeout_s: float = 300.0) -> None:
        """See `Deployment.wait`."""
        await asyncio.to_thread(self._deployment.wait, state, timeout_s=timeout_s)

    async def update(self, graphs: "Graphs | None" = None, **changes: Any) -> None:
        """See `Deployment.update`."""
        await asyncio.to_thread(self._deployment.update, graphs, **changes)

    async def add(self, graphs: "Graphs", **settings: Any) -> None:
        """See `Deployment.add`."""
        await asyncio.to_thread(self._deployment.add, graphs, **settings)

    async def remove(self, *names: str) -> None:
        """See `Deployment.remove`."""
        await asyncio.to_thread(self._deployment.remove, *names)

    async def history(self, *, limit: int = 100) -> tuple[Revision, ...]:
        """See `Deployment.history`."""
        return await asyncio.to_thread(self._deployment.history, limit=limit)

    async def rollback(self, generation: int | None = None, *, wait: bool = True) -> None:
        """See `Deployment.rollback`."""
        await asyncio.to_thread(self._deployment.rollback, generation, wait=wait)

    async def pause(self) -> None:
        """See `Deployment.pause`."""
        await asyncio.to_thread(self._deployment.pause)

    async def resume(self) -> None:
        """See `Deployment.resume`."""
        await asyncio.to_thread(self._deployment.resume)

    async def down(self, *, missing_ok: bool = False) -> None:
        """See `Deployment.down`."""
        await asyncio.to_thread(self._deployment.down, missing_ok=missing_ok)


async def deploy_async(graphs: "Graphs", **settings: Any) -> AsyncDeployment:
    """Deploys graphs like `deploy`, without blocking the event loop.

    Args:
        graphs: See `deploy`.
        **settings: Arguments of `deploy`.
    """
    return AsyncDeployment.of(await asyncio.to_thread(deploy, graphs, **settings))
