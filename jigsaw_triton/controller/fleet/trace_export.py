"""The process that exports traces of sampled requests, and the share of the requests that the gateway samples."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import Otlp
from jigsaw_triton.runtime.trace import EXPORT_FILE, SHARE_FILE

MODULE = "jigsaw_triton.console.otlp.process"

REASONS = ("full", "unreachable", "refused")
"""Reasons for which spans are dropped."""

_STOP_S = 8.0
"""Seconds after which a process that has not ended after SIGTERM is killed. It sends its last spans for five."""

_FIRST_DELAY_S, _MAX_DELAY_S = 0.5, 30.0
"""First and longest delay of the exponential backoff between restarts."""

_STABLE_S = 60.0
"""Seconds that the process must live for the backoff to start over."""


class TraceExport:
    """Keeps the process running while traces are exported.

    The process ends with the controller, at the end of its stdin. No request depends on it: the gateway and the workers
    write to files of limited size.

    Args:
        paths: Paths of the deployment.
        report: Function that records an event.
    """

    def __init__(self, paths: Paths, report: Callable[[str], None]) -> None:
        self._paths = paths
        self._report = report
        self._otlp: Otlp | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return self._process.pid if self._process is not None else None

    def status(self) -> dict[str, Any] | None:
        """Returns the part of the status about the export of traces; None if none are exported."""
        if self._otlp is None:
            return None
        counts: dict[str, Any] = {"exported": 0, "dropped": {}, "error": "", "lost_requests": 0, "lost_files": 0}
        with suppress(OSError, ValueError):
            counts |= json.loads((self._paths.run / EXPORT_FILE).read_bytes())
        return {
            "endpoint": self._otlp.endpoint,
            "sample": self._otlp.sample,
            "state": "ready" if self._process is not None else "restarting",
            "pid": self.pid,
            **counts,
            "dropped": dict.fromkeys(REASONS, 0) | counts["dropped"],
        }

    async def configure(self, otlp: Otlp | None) -> None:
        """Exports traces as wanted from now on.

        Args:
            otlp: Export of traces; None for none.
        """
        if otlp is None or (self._otlp is not None and otlp.url != self._otlp.url):
            await self.stop()
        if otlp is None:
            return
        share = self._paths.run / SHARE_FILE
        fresh = share.with_name(f"{SHARE_FILE}.new")
        try:
            fresh.write_text(f"{otlp.sample!r}\n")
            fresh.replace(share)
        except OSError as error:
            # This is reported instead of raised, because serving does not depend on traces.
            self._report(f"the share of requests to sample cannot be written to {share} ({error.strerror})")
        self._otlp = otlp
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(otlp.url), name="export of traces")

    async def stop(self) -> None:
        """Ends the export, after up to five seconds for the last spans. The call may be repeated."""
        (self._paths.run / SHARE_FILE).unlink(missing_ok=True)
        self._otlp = None
        keeping, self._keeping = self._keeping, None
        await end_tasks(keeping)
        (self._paths.run / EXPORT_FILE).unlink(missing_ok=True)

    async def _keep(self, url: str) -> None:
        """Starts the process, and starts it again when it ends."""
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_DELAY_S
        while True:
            began_s = loop.time()
            try:
                ended = await self._run(url)
            except OSError as error:
                ended = str(error)
            if loop.time() - began_s > _STABLE_S:
                delay_s = _FIRST_DELAY_S
            self._report(f"the process that exports traces ended with {ended}; it is started again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_DELAY_S)

    async def _run(self, url: str) -> str:
        """Runs the process until it ends, and ends it if this is cancelled. Returns its status.

        Raises:
            OSError: The process cannot be started.
        """
        # The folder of the package, wherever it was imported from.
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        # -P keeps a module in the working directory from shadowing a library.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", MODULE, str(self._paths.run), url),
            env={**os.environ, "PYTHONPATH": path},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        process = self._process
        try:
            return f"status {await process.wait()}"
        finally:
            self._process = None
            if process.returncode is None:
                await asyncio.shield(_ended(process))


async def _ended(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
