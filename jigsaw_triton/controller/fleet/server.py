"""A running tritonserver, and what can be done to it: load, verify, probe and unload models, kill, stop."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.compiler.store import remove_model, write_model
from jigsaw_triton.errors import RefusedError, ServerError
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.memory import lift_heap_limit
from jigsaw_triton.servers.probe import probe_inputs
from jigsaw_triton.servers.process import ServerProcess

log = logging.getLogger(__name__)

_GONE_POLL_S = 0.02
_DEATH_S = 1.0
_PROBE_S = 120.0
_PROBE_DEADLINES_S = (3.0, 12.0, 60.0)
"""Timeouts of the requests of a probe. Under overload a request is served shortly before its deadline, or refused."""

_UNLOAD_S = 120.0


@dataclass(slots=True)
class Server:
    """A running tritonserver.

    Attributes:
        process: Process of the server.
        client: Client of the server.
        repository: Model repository of the server.
        fence: Check before each change of the server; it raises if another controller owns the server now.
        uuid: UUID of the MIG instance; empty for the gateway.
        watch: Task that waits for the unexpected end of the process.
        loading: Names of the models that are being loaded.
        resumed: Names of the models among them that an earlier controller has asked for.
        wanted: Names of the models that it must have.
        reconciling: Task that checks the models of an adopted server.
        cause: Reason why it was killed; empty if it was not.
        stuck: True if it was killed because a model made no progress while it was loaded.
        limited: True if its heap is limited except while it loads models.
        unseen: True until it is known which models an earlier controller has it load.
        copies: Folder of the copies of deployed files, which models name.
    """

    process: ServerProcess
    client: TritonClient
    repository: Path
    fence: Callable[[], None]
    uuid: str = ""
    watch: asyncio.Task[None] | None = None
    loading: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)
    reconciling: asyncio.Task[None] | None = None
    cause: str = ""
    stuck: bool = False
    limited: bool = False
    unseen: bool = False
    copies: Path = Path()

    def kill(self, cause: str) -> None:
        """Kills the server, which is then restarted like any server that dies.

        Args:
            cause: Reason, as the end of a sentence that begins with `killed, because`.
        """
        if not self.cause:
            log.warning("%s is killed, because %s", self.process.name, cause, extra={"worker": self.process.name})
            self.cause = cause
        self.fence()
        self.process.kill()

    async def load_all(
        self,
        models: Sequence[ModelFolder],
        *,
        probed: Mapping[str, int] = MappingProxyType({}),
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Loads and verifies models: all of them or none.

        Args:
            models: Models in loading order.
            probed: Models that must answer a probe of zeros -> number of probes at once. One for each instance, so that
                no first batch of a request is slow.
            check: Further check after the models have been loaded; None if there is none.
        """
        loaded: list[str] = []
        try:
            for model in models:
                await asyncio.to_thread(write_model, model, self.repository, self.copies)
                loaded.append(model.name)
                await self.load(model.name)
            await self.verify(loaded)
            for name, count in probed.items():
                await asyncio.gather(*(self.probe(name) for _ in range(count)))
            if check is not None and loaded:
                await check()
            self.wanted.update(loaded)
        except BaseException:
            # If the server itself has failed, the models are gone with it and cannot be unloaded.
            with contextlib.suppress(ServerError, TimeoutError):
                await asyncio.shield(self.unload_all(loaded))
            raise

    async def load(self, model: str) -> None:
        """Loads a model of the repository."""
        self.fence()
        self.unseen = False
        self.loading.append(model)
        if self.process.pid is not None and self.limited:
            lift_heap_limit(self.process.pid)
        try:
            await self.client.load(model)
        except ServerError as error:
            # The gateway refuses a front whose routes are of an epoch that is over.
            self.fence()
            name, log = self.process.name, self.process.log
            raise ServerError(f"cannot load model {model}: {error.message}", where=name, hint=f"see {log}") from error
        finally:
            self.loading.remove(model)

    def note_loading(self, models: Sequence[str]) -> None:
        """Notes which models are being loaded now because an earlier controller has asked for them."""
        for model in self.resumed:
            self.loading.remove(model)
        self.resumed = list(models)
        self.loading.extend(models)
        if models and self.process.pid is not None and self.limited:
            lift_heap_limit(self.process.pid)

    async def verify(self, models: Sequence[str]) -> None:
        """Checks that models are ready, since Triton may report success for a load that left a model out."""
        states = await self.client.index()
        missing = [name for name in models if states.get(name) != "READY"]
        if missing:
            found = ", ".join(f"{name} is {states.get(name, 'absent')}" for name in missing)
            raise ServerError(f"not all models are ready: {found}", where=self.process.name)

    async def probe(self, model: str, inputs: Arrays | None = None) -> Arrays:
        """Sends a request to a model, with zeros if there are no inputs, again if it is refused. Returns the answer.

        Raises:
            ServerError: The model does not answer.
        """
        inputs = inputs or probe_inputs(await self.client.config(model))
        try:
            for deadline_s in _PROBE_DEADLINES_S:
                with contextlib.suppress(RefusedError):
                    return await self.client.infer(model, inputs, timeout_s=_PROBE_S, deadline_s=deadline_s)
            return await self.client.infer(model, inputs, timeout_s=_PROBE_S)
        except ServerError as error:
            raise ServerError(
                f"model {model} loaded but does not answer a probe: {error.message}",
                where=self.process.name,
                hint=f"see {self.process.log}",
            ) from error

    async def unload_all(self, models: Iterable[str]) -> None:
        """Unloads models, waits until they are gone, and removes their folders."""
        self.fence()
        names = list(models)
        self.wanted.difference_update(names)
        states = await self.client.index()
        for name in names:
            if states.get(name, "UNAVAILABLE") != "UNAVAILABLE":
                await self.client.unload(name)
        async with asyncio.timeout(_UNLOAD_S):
            while True:
                states = await self.client.index()
                if all(states.get(name, "UNAVAILABLE") == "UNAVAILABLE" for name in names):
                    break
                await asyncio.sleep(_GONE_POLL_S)
        for name in names:
            await asyncio.to_thread(remove_model, name, self.repository)

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Stops the server and all of its processes.

        Args:
            grace_s: Seconds to wait for requests in progress.
        """
        self.fence()
        if self.watch is not None:
            self.watch.cancel()
        await self.client.close()
        await self.process.stop(grace_s=grace_s)
        # A concurrent call may have opened a new connection.
        await self.client.close(for_good=True)

    async def has_died(self) -> bool:
        """Waits a moment for the end of the server. Returns True if it has ended or no longer answers.

        Another process may then succeed. Returns False if it was killed because a model made no progress.
        """
        return not self.stuck and (await self.has_ended() or not await self.client.ready())

    async def has_ended(self) -> bool:
        """Waits a moment for the end of the server, which does not answer. Returns True if it has ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), _DEATH_S)
            return True
        return False
