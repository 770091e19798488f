"""The standby gateway of a node: a gateway that serves what the controller's gateway serves, on a machine of its own.

The controller says what it is to serve, as a value (`controller.fleet.gateway_content`). One task reconciles the
gateway with the last value, whatever runs: a gateway of an earlier agent, one that has died, or none.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable

from jigsaw_triton.agent.standby_gateway import StandbyGateway
from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.drain import drained
from jigsaw_triton.controller.fleet.gateway_content import content_digests, copy_digests, opened_content
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.wire import Condemned, Json, NodeEvent
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.records import STANDBY_GATEWAY_FACT
from jigsaw_triton.errors import error_text
from jigsaw_triton.servers.certificates.credentials import Credentials

log = logging.getLogger(__name__)

_TIDY_S = 1.0
"""Seconds after which routes that were still in use are looked at again."""

_END_S = 30.0
"""Seconds to wait for the end of the standby gateway."""


class GatewayKeeper:
    """Keeps a standby gateway in sync with what the controller wants.

    Args:
        name: Name of the node.
        paths: Paths of the node's files.
        node: Workers of this machine, among whose servers the gateway is.
        journal: Journal of the node.
        contents: Files of models.
        credentials: Certificate of the node, with which the gateway calls workers of other nodes.
        notify: Callback for events that the controller has to know.
    """

    def __init__(
        self,
        name: str,
        paths: Paths,
        node: LocalNode,
        journal: Journal,
        contents: Contents,
        credentials: Credentials,
        notify: Callable[[NodeEvent], None],
    ) -> None:
        self._name = name
        self._paths = paths
        self._journal = journal
        self._contents = contents
        self._notify = notify
        self._servers = StandbyGateway(name, paths, node, journal, credentials, self._report)
        self._wanted: Json | None = None
        self._order = self._applied = ("", 0)
        self._in_sync = True
        self._failure = ""
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        node.servers.health.elsewhere = self._condemn

    # --- what is wanted --------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """True if a standby gateway runs or is wanted."""
        return self._wanted is not None

    def digests(self) -> set[str]:
        """Returns the digests of the files that the standby gateway, or a controller on this machine, needs."""
        wanted = self._wanted
        return {*content_digests(wanted), *copy_digests(wanted)} if wanted is not None else set()

    def want(self, epoch: str, number: int, content: Json | None) -> None:
        """Sets what to serve from now on; None for nothing. An order that comes late is ignored.

        Args:
            epoch: Epoch of the controller.
            number: Number of the order, which grows.
            content: The content, whose files have arrived.
        """
        if epoch == self._order[0] and number <= self._order[1]:
            return
        self._order = (epoch, number)
        self._want(content)

    async def end(self) -> None:
        """Ends the standby gateway, and waits until it has ended."""
        if self._wanted is None and self._in_sync:
            return
        self._want(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S), self._progress:
                await self._progress.wait_for(lambda: self._in_sync)

    def _want(self, content: Json | None) -> None:
        before, self._wanted, self._in_sync = self._wanted, content, False
        self._journal.keep_fact(STANDBY_GATEWAY_FACT, json.dumps(content) if content is not None else "")
        if before is not None and before["state"] not in self.digests():
            # Each change brings a copy, so earlier ones are not kept.
            self._contents.path(before["state"]).unlink(missing_ok=True)
        self._wake.set()

    async def status(self, after: tuple[str, int] = ("", 0), wait_s: float = 0.0) -> Json:
        """Returns the state of the gateway.

        Args:
            after: Epoch and number of an order to wait for.
            wait_s: Seconds to wait until that order has been carried out.
        """
        if wait_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s), self._progress:
                    await self._progress.wait_for(lambda: self._applied == after)
        state = "absent" if self._wanted is None else "ready" if self._servers.serves else "starting"
        return {
            "order": list(self._order),
            "applied": list(self._applied),
            "state": state,
            "pid": self._servers.pid,
            "failure": self._failure,
        }

    async def unused(
        self, models: Iterable[tuple[str, str]], generations: Iterable[tuple[str, int]], wait_s: float
    ) -> bool:
        """Waits until the gateway uses none of these models and generations. Returns False if it still does.

        Args:
            models: (worker, model) pairs.
            generations: (graph, generation) pairs.
            wait_s: Seconds to wait.
        """
        files = [
            *(self._paths.slots(worker, model) for worker, model in models),
            *(self._paths.generation(graph, number) for graph, number in generations),
        ]
        # A model or a generation that has no file was never used by the gateway.
        return all(await asyncio.gather(*(drained(path, wait_s) for path in files if path.exists())))

    # --- events ----------------------------------------------------------------------------------------------------

    def takes(self, event: NodeEvent) -> bool:
        """Handles an event of a server of the standby gateway. Returns False if the event concerns another server."""
        match event:
            case e.GatewayExited(status):
                self._servers.exited(GATEWAY)
                self._report("error", f"the standby gateway on node {self._name} ended: {status}; starting it again")
            case e.WorkerExited(worker, status) if self._is_own(worker):
                self._servers.exited(worker)
                self._report("error", f"{worker} beside the standby gateway ended: {status}; starting it again")
            case e.Stalled(server, seconds) if self._is_own(server):
                text = f"{server} on node {self._name}, of the standby gateway, has not answered for {seconds:g} s"
                self._report("error", text)
                return True
            case e.Loading(server) | e.Answered(server) if self._is_own(server):
                return True
            case _:
                return False
        self._in_sync = False
        self._wake.set()
        return True

    def _is_own(self, server: str) -> bool:
        wanted = {step["name"] for step in self._wanted["steps"]} if self._wanted is not None else set()
        return server == GATEWAY or server in wanted or server in self._servers.steps

    def _report(self, kind: str, text: str) -> None:
        self._notify(e.Noticed(kind, text))

    async def _condemn(self, worker: str, cause: str) -> None:
        self._notify(Condemned(worker, cause, self._servers.incarnation(worker)))

    # --- reconciliation --------------------------------------------------------------------------------------------

    def steps(self) -> dict[str, Worker]:
        """Returns the workers without a GPU that an earlier agent kept beside its gateway, by name."""
        known = self._journal.fact(STANDBY_GATEWAY_FACT)
        if not known:
            return {}
        return {worker.name: worker for worker in opened_content(json.loads(known), self._contents.path).steps}

    async def start(self, ended: Iterable[str] = ()) -> None:
        """Begins to go on with the gateway of an earlier agent, or to end it if there is to be none.

        Args:
            ended: Names of the workers of `steps` that have ended.
        """
        known = self._journal.fact(STANDBY_GATEWAY_FACT)
        self._wanted = json.loads(known) if known else None
        self._in_sync = False
        # The workers of the node must not wait for the standby gateway.
        keeping = self._keep(self._wanted, frozenset(ended))
        self._task = asyncio.create_task(keeping, name="keep the standby gateway")

    async def _keep(self, earlier: Json | None, ended: frozenset[str]) -> None:
        """Reconciles the gateway whenever something else is wanted, or something has ended.

        Args:
            earlier: Content that the gateway of an earlier agent serves; None if there was none.
            ended: Names of its workers without a GPU that have ended.
        """
        begun, failures = False, 0
        while True:
            self._wake.clear()
            order, wanted = self._order, self._wanted
            wait_s: float | None = None
            try:
                if not begun:
                    await self._go_on(earlier, ended)
                    begun = True
                if wanted is None:
                    await self._servers.end()
                elif not await self._servers.apply(opened_content(wanted, self._contents.path)):
                    wait_s = _TIDY_S
                failures, self._failure = 0, ""
                self._applied, self._in_sync = order, not self._wake.is_set()
                await self._tell()
            except Exception as error:
                # Any error may pass, so the next content or the next attempt is tried in any case.
                text = error_text(error)
                log.warning("the standby gateway is not in sync", exc_info=error)
                if text != self._failure:
                    self._failure = text
                    self._report("error", f"the standby gateway on node {self._name} is not in sync: {text}")
                failures += 1
                wait_s = max(Settings().backoff_s(failures), _TIDY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _go_on(self, earlier: Json | None, ended: frozenset[str]) -> None:
        before = opened_content(earlier, self._contents.path) if earlier is not None else None
        if before is not None and self._wanted is not None and self._servers.is_current:
            await self._servers.adopt(before, ended)
        else:
            await self._servers.clear([worker.name for worker in before.steps] if before is not None else [])

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()
