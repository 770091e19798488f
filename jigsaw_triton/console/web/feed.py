"""Follows a controller for all open pages with one connection, and sends each page what is new."""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.console.web.document import ABSENT, document, with_finished_stages
from jigsaw_triton.console.web.live import Live
from jigsaw_triton.console.web.measured import NAMES, Measured, Reading, measured, read
from jigsaw_triton.console.web.merge_patch import merge_patch
from jigsaw_triton.errors import JigsawError

log = logging.getLogger(__name__)

Json = dict[str, Any]

WINDOW_S = 10.0
"""Seconds of load that measurements of tasks and workers show. A convention: a second has too few calls for a
percentile."""

_WAIT_S = 1.0
"""Seconds that the controller may wait for a change before it answers."""

_GAP_S = 0.25
"""Least number of seconds between two calls to the controller, however often its state changes."""

_REFRESH_S = 5.0
"""Seconds after which the view is asked for although its version is the same: utilisations have no version."""

_SCRAPE_S = 1.0
"""Seconds between two readings of the gateway's metrics."""

_MOST_WAITING = 64
"""Messages that wait for a page. A slower one gets the whole state again instead."""


class Page:
    """An open page."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.has_state = False

    async def next(self) -> bytes | None:
        """Waits for the next message; None at the end of the console."""
        return await self._waiting.get()

    def put(self, message: bytes | None) -> None:
        """Adds a message. If too many wait already, all are dropped, and the page needs the whole state again."""
        if self._waiting.qsize() >= _MOST_WAITING:
            while not self._waiting.empty():
                self._waiting.get_nowait()
            self.has_state = False
            if message is not None:
                return
        self._waiting.put_nowait(message)


class Feed:
    """Follows a controller while pages are open.

    Args:
        live: The running part of the deployment.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pages: set[Page] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._version = ""
        self._event: int | None = None
        self._sample_t = self._answered_at_s = time.time()
        self._view: Mapping[str, Any] = ABSENT
        self._sample: Json | None = None
        self._state: Json | None = None
        self._stale = False
        self._refreshed_s = -_REFRESH_S
        self._readings: deque[Reading] = deque()

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """Opens a page for the `with` block. Its first message is the whole state."""
        page = Page()
        self._pages.add(page)
        if self._closed:
            page.put(None)
        elif self._task is None:
            self._forget()
            self._task = asyncio.create_task(self._run(), name="console feed")
        elif self._state is not None:
            self._send_state(page)
        try:
            yield page
        finally:
            self._pages.discard(page)
            if not self._pages and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """Ends all pages."""
        self._closed = True
        task, self._task = self._task, None
        await end_tasks(task)
        for page in self._pages:
            page.put(None)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._measure())

    async def _follow(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self._turn(began_s)
            except JigsawError as error:
                log.debug("%s", error)
                self._lose()
            except Exception:
                # An error must not end this loop: pages would wait for ever without showing that something is wrong.
                if not self._stale:
                    log.exception("the controller's answer cannot be shown")
                self._lose()
            gap_s = _WAIT_S if self._stale else _GAP_S
            await asyncio.sleep(max(0.0, began_s + gap_s - time.monotonic()))

    async def _turn(self, now_s: float) -> None:
        """Asks once, and sends what is new."""
        due = now_s - self._refreshed_s >= _REFRESH_S
        version = "" if due or self._state is None else self._version
        answer = await self._live.view(version, self._event, self._sample_t, _WAIT_S)
        self._answered_at_s = time.time()
        if "view" in answer:
            self._view, self._refreshed_s = answer["view"], now_s
        self._version, self._event = answer["version"], answer["event"]
        if self._stale:
            self._stale = False
            self._send(_message("stale", {"since": None}))
        for sample in answer["samples"]:
            self._sample, self._sample_t = sample, sample["t"]
        self._publish()
        self._send(b"".join(_message("sample", sample) for sample in answer["samples"]))
        self._send(b"".join(_message("event", event) for event in answer["events"]))

    async def _measure(self) -> None:
        """Reads the gateway's metrics again and again. A gateway that hangs delays nothing else."""
        while True:
            await asyncio.sleep(_SCRAPE_S)
            url = self._view["gateway"].get("metrics")
            if url is None or self._stale:
                continue
            try:
                self._add(read(await self._live.metrics(url, NAMES), time.monotonic()))
            except JigsawError as error:
                log.debug("%s", error)
                self._readings.clear()
            except Exception:
                log.exception("the gateway's metrics cannot be shown")
                self._readings.clear()

    def _add(self, reading: Reading) -> None:
        self._readings.append(reading)
        while len(self._readings) > 2 and reading.at_s - self._readings[1].at_s > WINDOW_S:
            self._readings.popleft()
        if self._state is not None:
            self._publish()

    def _lose(self) -> None:
        """Sends the pages the time since which nothing has answered."""
        if self._state is None:
            self._view = ABSENT
            self._publish()
        if not self._stale:
            self._stale = True
            self._readings.clear()
            self._send(self._stale_message())

    def _publish(self) -> None:
        """Sends what has changed in the state, or the whole state to pages that lack it."""
        found = measured(self._readings[0], self._readings[-1]) if len(self._readings) > 1 else Measured()
        before, now_s = self._state, time.time()
        # No samples come while the gateway does not run.
        recent = self._sample is not None and now_s - self._sample["t"] <= WINDOW_S
        now = document(self._view, found, self._sample if recent else None, now_s)
        now["change"] = with_finished_stages(before["change"] if before is not None else None, now["change"])
        self._state = now
        patch = merge_patch({**before, "now": now["now"]}, now) if before is not None else {}
        message = _message("patch", {"now": now["now"], **patch}) if patch else b""
        for page in self._pages:
            if not page.has_state:
                self._send_state(page)
            elif message:
                page.put(message)

    def _send_state(self, page: Page) -> None:
        page.has_state = True
        page.put(_message("state", self._state))
        if self._stale:
            page.put(self._stale_message())

    def _stale_message(self) -> bytes:
        return _message("stale", {"since": round(self._answered_at_s, 3)})

    def _send(self, message: bytes) -> None:
        for page in self._pages if message else ():
            if page.has_state:
                page.put(message)


def _message(kind: str, data: object) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()
