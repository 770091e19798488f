"""Calls to the agent of a node, through the Unix socket that the gateway's side of the transport offers for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from jigsaw_triton.controller.fleet.wire import DEPLOYMENT_HEADER, Json
from jigsaw_triton.errors import InputError, JigsawError, ServerError, StateError
from jigsaw_triton.servers.transport.config import EPOCH_HEADER

_ERRORS: Mapping[int, type[JigsawError]] = {2: InputError, 4: StateError}
_AWAY = frozenset({502, 503, 504})
"""Statuses of the proxies between a controller and an agent that does not answer."""

_CALL_S = 5.0
"""Seconds that an agent may take to answer, in addition to those that a call waits on purpose."""

_LOOK_S = 1.0
"""Seconds between two checks of whether the node that gets a file was lost."""

_CHUNK_BYTES = 2**20


class AwayError(ServerError):
    """The agent of a node does not answer."""


class AgentCalls:
    """Client of one agent.

    Args:
        node: Name of the node, for messages.
        socket: Unix socket that leads to the agent.
        deployment: Identity of the deployment.
        epoch: Returns the epoch of the controller: its number, and digits that tell it from another one of this number.
        copies: Folder of the copies of deployed files, which relative paths of files to send name.
    """

    def __init__(
        self, node: str, socket: Path, deployment: str, epoch: Callable[[], str], copies: Path = Path()
    ) -> None:
        self.deployment = deployment
        self._copies = copies
        self.epoch = epoch
        self._node = node
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, *, wait_s: float = 0.0, timeout_s: float = _CALL_S, **query: int) -> Any:
        """Returns the JSON that the agent has at a path. Arguments as for `call`."""
        texts = {name: str(value) for name, value in query.items()}
        if wait_s:
            texts["wait"] = f"{wait_s:g}"
        return await self.call("GET", path, query=texts, timeout_s=timeout_s + wait_s)

    async def post(self, path: str, body: Json, *, timeout_s: float = _CALL_S) -> Any:
        """Sends JSON to the agent and returns its answer. Arguments as for `call`."""
        return await self.call("POST", path, json.dumps(body).encode(), timeout_s=timeout_s)

    async def put(self, path: str, content: bytes | Path, offset: int) -> None:
        """Sends a file, or its rest from an offset in bytes."""
        body = content[offset:] if isinstance(content, bytes) else _chunks(self._copies / content, offset)
        # The time of a large file depends on the network; the proxies end a transfer that stalls.
        await self.call("PUT", path, body, query={"offset": str(offset)}, timeout_s=None)

    async def send(self, digest: str, content: bytes | Path, offset: int, ends: Callable[[], bool]) -> None:
        """Sends a file by its digest, or its rest from an offset in bytes.

        Args:
            digest: SHA-256 of the file.
            content: The file.
            offset: Number of bytes that the agent has.
            ends: Returns true if the transfer must end early, such as when the node is lost.

        Raises:
            AwayError: The agent does not answer, or the transfer ended early.
            JigsawError: The agent refuses, with this error.
        """
        sending = asyncio.ensure_future(self.put(f"/contents/{digest}", content, offset))
        try:
            # A call that sends has no timeout, and an agent that hangs may keep it open.
            while not (await asyncio.wait((sending,), timeout=_LOOK_S))[0]:
                if ends():
                    raise AwayError("the transfer of a file was interrupted", where=f"node {self._node}")
            await sending
        finally:
            sending.cancel()

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = _CALL_S,
    ) -> Any:
        """Calls the agent and returns the JSON that it answers.

        Args:
            method: Method of HTTP.
            path: Path of the resource.
            body: Content to send.
            query: Parameters of the path.
            timeout_s: Seconds until the answer must be there; None for no limit.

        Raises:
            AwayError: The agent does not answer.
            JigsawError: The agent refuses, with this error.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        headers = {DEPLOYMENT_HEADER: self.deployment, EPOCH_HEADER: self.epoch()}
        try:
            async with self._opened().request(
                method, f"http://agent{path}", data=body, params=query, headers=headers, timeout=timeout
            ) as response:
                text = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(str(error) or type(error).__name__) from error
        if status in _AWAY:
            raise self._away(f"status {status}")
        try:
            data = json.loads(text)
        except ValueError as error:
            raise self._away(f"status {status} without JSON") from error
        if status >= 400:
            found = data["error"]
            where = f"node {self._node}" + (f", {found['where']}" if found["where"] else "")
            raise _ERRORS.get(found["code"], ServerError)(found["message"], where=where, hint=found["hint"])
        return data

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._socket), limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _away(self, reason: str) -> AwayError:
        hint = f"see if `jigsaw-triton agent --name {self._node}` runs there, and if its port can be reached from here"
        return AwayError(f"the agent does not answer ({reason})", where=f"node {self._node}", hint=hint)


async def _chunks(path: Path, offset: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        file.seek(offset)
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
    finally:
        file.close()
