"""The running part of a deployment, as the console asks for it: its controller and its gateway."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp

from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.servers.metrics import Sample, parse_metrics
from jigsaw_triton.spec.words import nearest

Json = dict[str, Any]

CHANGES = ("pause", "resume", "rollback", "cordon", "uncordon")
"""Changes that the console can ask for."""

_STALE_S = 5.0
"""Seconds without an answer of the controller after which what is shown counts as stale."""

_GATEWAY_S = 2.0
"""Seconds that the gateway may take to answer with its metrics."""


class Live(Protocol):
    """The running part of a deployment, as the feed follows it."""

    async def view(self, version: str, event: int | None, sample: float, wait_s: float) -> Json:
        """Returns what is new; see `ControllerClient.view`."""

    async def metrics(self, url: str, names: tuple[str, ...]) -> tuple[Sample, ...]:
        """Returns samples of the gateway's metrics whose names begin with one of these."""


class Running:
    """A controller behind its socket, and its gateway.

    Args:
        paths: Paths of the deployment.
    """

    def __init__(self, paths: Paths) -> None:
        self._client = ControllerClient(paths.control_socket, _STALE_S)
        self._session: aiohttp.ClientSession | None = None

    async def view(self, version: str, event: int | None, sample: float, wait_s: float) -> Json:
        """Returns what is new; see `ControllerClient.view`.

        Raises:
            StateError: No controller answers.
        """
        return await asyncio.to_thread(self._client.view, version, event, sample, wait_s)

    async def metrics(self, url: str, names: tuple[str, ...]) -> tuple[Sample, ...]:
        """Returns samples of the gateway's metrics whose names begin with one of these.

        Raises:
            ServerError: The gateway does not answer.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_GATEWAY_S))
        try:
            async with self._session.get(url) as response:
                return parse_metrics(await response.text(), names)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ServerError(f"the gateway's metrics cannot be read: {error}", where=url) from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, kind: str, asked: Mapping[str, Any]) -> None:
        """Asks the controller for a change.

        Args:
            kind: One of `CHANGES`.
            asked: Body of the request, with the `generation` to return to or the `node` to withdraw.

        Raises:
            InputError: There is no such change, or the body lacks what it needs.
            StateError: The controller refuses, or does not answer.
        """
        match kind:
            case "pause" | "resume":
                await asyncio.to_thread(self._client.pause, kind == "pause")
            case "rollback":
                number = asked.get("generation")
                if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                    raise InputError("the generation is not a whole number", where=repr(number))
                await asyncio.to_thread(self._client.rollback, number)
            case "cordon" | "uncordon":
                node = asked.get("node")
                if not isinstance(node, str):
                    raise InputError("no node is named", where="node", hint="give the name of a node of the cluster")
                await asyncio.to_thread(self._client.cordon, node, cordoned=kind == "cordon")
            case _:
                raise InputError(f"there is no change {kind!r}", hint=nearest(kind, CHANGES))
