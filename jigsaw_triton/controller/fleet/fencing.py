"""Fencing: after a controller was started on another machine, workers refuse the gateway that it has left behind.

That gateway may go on: its machine may only be cut off from the new controller. Its routes become outdated, and nothing
changes them, so it must not call workers any more.
"""

import asyncio
import logging
import platform
from pathlib import Path

from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.replication import Replication
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError

log = logging.getLogger(__name__)

_MACHINE_FACT, _PENDING_FACT = "machine", "fencing"
"""Journal keys of the machine and folder of the last controller, and of a mark while nodes are still to be fenced."""

_MACHINE_ID = Path("/etc/machine-id")

_IN_LINE_S, _RETRY_S = 10.0, 1.0
"""Seconds that the standby gateway has to get its new epoch, and between two tries to tell a node."""


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
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins to tell the nodes if the last controller ran elsewhere."""
        here, before = self._here(), self._journal.fact(_MACHINE_FACT)
        if before and before != here:
            self._journal.keep_fact(_PENDING_FACT, "pending")
        self._journal.keep_fact(_MACHINE_FACT, here)
        if self._journal.fact(_PENDING_FACT) and self._task is None:
            self._task = asyncio.create_task(self._run(), name="fence earlier gateways")

    async def stop(self) -> None:
        """Stops to tell the nodes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    def _here(self) -> str:
        try:
            machine = _MACHINE_ID.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            machine = ""
        return f"{machine} {platform.node()} {self._paths.state}"

    async def _run(self) -> None:
        # Otherwise the standby, which may be the only gateway that serves, would be refused for a moment.
        await self._replication.wait_in_line(_IN_LINE_S)
        told: set[str] = set()
        while left := [node for node in self._nodes if node.name not in told]:
            for node in left:
                try:
                    if not node.away:
                        await node.calls.post("/fence", {})
                        told.add(node.name)
                except JigsawError as error:
                    log.info("%s", error)
            await asyncio.sleep(_RETRY_S)
        self._journal.keep_fact(_PENDING_FACT, "")
