"""The common part of both sides of the transport: one HAProxy with the certificates of a node."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.servers.certificates.credentials import REMIND_BEFORE, Credentials, check_credentials
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.keeper import Contents, HaproxyKeeper, contents
from jigsaw_triton.servers.haproxy.process import place_in
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import credential_links

_REMIND_INTERVAL_S = 86_400.0

Report = Callable[[str, str], None]
"""Function that records an event, given its kind and a sentence."""


class Side:
    """Keeps the HAProxy of one side running.

    Args:
        name: Name among the servers, and kind of its events.
        title: Subject of a sentence in an event.
        node: Name of the node that the certificate must be for; empty if it does not matter.
        credentials: Certificate, key and authorities.
        folder: Folder for HAProxy's files and sockets.
        log: Log file.
        files: Function that generates HAProxy's files.
        listening: Function that is called whenever another process has begun to listen.
        report: Function that records an event.
        env: Environment variables in addition to the inherited ones.
        survives: True if HAProxy outlives this process.
    """

    def __init__(
        self,
        name: str,
        title: str,
        node: str,
        credentials: Credentials,
        *,
        folder: Path,
        log: Path,
        files: Callable[[Place], dict[str, str]],
        listening: Callable[[], None] = lambda: None,
        report: Report,
        env: Mapping[str, str],
        survives: bool,
    ) -> None:
        self.place = place_in(folder)
        self._title = title
        self._node = node
        self._credentials = credentials
        self._files = files
        self._report = report
        self._keeper = HaproxyKeeper(
            name, title, self.place, log, self._read, report, env=env, survives=survives, listening=listening
        )
        self._checked: Mapping[str, bytes] = {}
        self._expires: datetime | None = None
        self._reminder: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """True from the start to the end."""
        return self._keeper.started

    async def start(self, ports: Iterable[tuple[str, int]], found: OsProcess | None) -> None:
        """Starts HAProxy, in the place of `found` if there is one."""
        if found is not None:
            await self._keeper.adopt(found)
        else:
            await self._keeper.start(ports)
        self._reminder = self._reminder or asyncio.create_task(self._remind(), name=f"remind of {self._title}")

    async def reload(self) -> None:
        """Applies changed settings, if HAProxy was started."""
        if self._keeper.started:
            await self._keeper.reload()

    def status(self) -> dict[str, Any]:
        """Returns the state of HAProxy, and the time at which the first certificate expires."""
        return {
            **self._keeper.status(),
            "certificates_expire": self._expires.isoformat() if self._expires is not None else None,
        }

    async def stop(self) -> None:
        """Stops HAProxy. The call may be repeated."""
        await end_tasks(self._reminder)
        self._reminder = None
        await self._keeper.stop()

    def _read(self) -> Contents:
        found = contents(self._files(self.place), credential_links(self._credentials))
        if found.digests != self._checked:
            self._expires = check_credentials(self._credentials, self._node)
            self._checked = found.digests
        return found

    async def _remind(self) -> None:
        while True:
            if self._expires is not None and self._expires - datetime.now(UTC) < REMIND_BEFORE:
                self._report(
                    "certificate",
                    f"a certificate of {self._title} expires on {self._expires:%Y-%m-%d %H:%M} UTC; "
                    f"replace {self._credentials.cert} before then",
                )
            await asyncio.sleep(_REMIND_INTERVAL_S)
