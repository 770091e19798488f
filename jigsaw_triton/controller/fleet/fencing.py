"""Fencing: after a controller was started on another machine, workers refuse the gateway that it has left behind.

That gateway may go on: its machine may only be cut off from the new controller. Its routes become outdated, and nothing
changes them, so it must not call workers any more. A fence is the first epoch whose gateways may. All nodes get it,
also those that join later. By it, a controller that was left behind learns that it was replaced (`succession`).
"""

import asyncio
import logging
import platform
from pathlib import Path

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.replication import Replication
from jigsaw_triton.controller.fleet.succession import fences_in, keep_fence
from jigsaw_triton.controller.persistence.epoch import number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError

log = logging.getLogger(__name__)

_MACHINE_FACT = "machine"
"""Journal key of the machine and the folder of the last controller."""

_MACHINE_ID = Path("/etc/machine-id")

_LEAP = 1_000_000
"""Difference between a fence and the epochs before it. Each start of a controller that is cut off begins an epoch, and
none of these may reach the fence."""

_FOLLOW_S, _LOOK_S = 10.0, 1.0
"""Seconds that the standby gateway has to get its new epoch, and between two looks at the nodes."""


class Fencing:
    """Has the nodes refuse gateways of earlier controllers, once this one has come from another machine.

    Args:
        paths: Paths of the deployment.
        journal: Journal of the deployment.
        nodes: Nodes of the cluster.
        replication: Standby gateway, which must have the epoch of this controller before.
    """

    def __init__(self, paths: Paths, journal: Journal, nodes: RemoteNodes, replication: Replication) -> None:
        self._paths = paths
        self._journal = journal
        self._nodes = nodes
        self._replication = replication
        self._moved = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins to look after the fences of the nodes."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="fence earlier gateways")

    async def stop(self) -> None:
        """Stops looking after the fences."""
        await end_tasks(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except JigsawError as error:
                log.info("%s", error)
            except Exception:
                # Any error may pass, and if this loop ended, nothing would fence the gateway that was left behind.
                log.exception("nodes are not fenced")
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        """Sets the fence of nodes that have another one, and completes the change to an epoch that has failed."""
        await self._nodes.renew_epoch()
        in_sync = [node for node in self._nodes if node.described is not None and not node.away]
        here, before, known = self._here(), self._journal.fact(_MACHINE_FACT), fences_in(self._journal)
        # A fence that the journal lacks was set by a controller that replaced this one and has lost the nodes again.
        taken_back = not self._moved and any(_fence(node) not in ("", *known) for node in in_sync)
        if before not in ("", here) or taken_back:
            await self._move()
        if before != here:
            self._journal.keep_fact(_MACHINE_FACT, here)
        wanted = next(reversed(fences_in(self._journal)), "")
        left = [node for node in in_sync if _fence(node) != wanted]
        if not wanted or not left:
            return
        await asyncio.to_thread(self._journal.flush)
        # The next controller would take a fence that its journal lacks for that of a controller on another machine.
        if not self._journal.failure:
            await asyncio.gather(*(self._fence(node, wanted) for node in left))

    async def _fence(self, node: RemoteNode, fence: str) -> None:
        """Sets the fence of a node. One that does not answer delays no other, and is tried again."""
        try:
            await node.calls.post("/fence", {"fence": fence, "machine": platform.node()})
            node.described = await node.describe()
        except JigsawError as error:
            log.info("%s", error)

    async def _move(self) -> None:
        """Begins an epoch from which on gateways may call workers."""
        await self._nodes.surpass(number_of(self._nodes.epoch) + _LEAP)
        keep_fence(self._journal, self._nodes.epoch)
        self._moved = True
        # The standby may be the only gateway that serves, and would be refused until it has the epoch.
        self._replication.renew()
        await self._replication.wait_followed(_FOLLOW_S)

    def _here(self) -> str:
        try:
            machine = _MACHINE_ID.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            machine = ""
        return f"{machine} {platform.node()} {self._paths.state}"


def _fence(node: RemoteNode) -> str:
    return str((node.described or {}).get("fence", ""))
