"""A stand-in for a controller and its gateway as the web console asks them."""

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from jigsaw_triton.console.client import ControllerGoneError
from jigsaw_triton.console.web.document import ABSENT
from jigsaw_triton.console.web.live import Running
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample, parse_metrics

_MOMENT_S = 0.005
"""Seconds that an answer without news takes."""


class FakeLive:
    """Answers at once if something is new, and otherwise after a moment.

    Attributes:
        view_now: View of the controller. `change` replaces parts of it.
        events: Events, oldest first.
        samples: Samples of the load, oldest first.
        gone: True while no controller answers.
        metrics_text: Function that returns the text of the gateway's /metrics at each reading, from 1; None while the
            gateway does not answer.
        questions: Number of questions to the controller.
        changes: Changes that were asked for, with their bodies.
        run: Number of the controller's process.
    """

    def __init__(self) -> None:
        self.view_now: dict[str, Any] = copy.deepcopy(dict(ABSENT))
        self.change(deployment={"state": "ready", "generation": 1})
        self.events: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.gone = False
        self.metrics_text: Callable[[int], str | None] = lambda _: None
        self.questions = 0
        self.changes: list[tuple[str, Mapping[str, Any]]] = []
        self.run = 1

    _version = 0
    _readings = 0

    def change(self, **parts: Any) -> None:
        """Replaces parts of the view."""
        self.view_now = {**self.view_now, **parts}
        self._version += 1

    def as_running(self) -> Running:
        """Returns this object where a `Running` is expected."""
        return cast(Running, self)

    async def view(self, version: str, event: int | None, sample: float, wait_s: float) -> dict[str, Any]:
        self.questions += 1
        if self.gone:
            raise ControllerGoneError("no controller is running here")
        now = f"{self.run}.{self._version}"
        news = [e for e in self.events if event is not None and e["id"] > event]
        if version == now and not news:
            await asyncio.sleep(_MOMENT_S)
        last = self.events[-1]["id"] if self.events else 0
        samples = [s for s in self.samples if s["t"] > sample]
        answer: dict[str, Any] = {"version": now, "event": last, "events": news, "samples": samples}
        if version != now:
            answer["view"] = self.view_now
        answer = json.loads(json.dumps(answer))
        return answer

    async def metrics(self, url: str, names: tuple[str, ...]) -> tuple[Sample, ...]:
        self._readings += 1
        text = self.metrics_text(self._readings)
        if text is None:
            raise ServerError("the gateway does not answer", where=url)
        return parse_metrics(text, names)

    async def ask(self, kind: str, asked: Mapping[str, Any]) -> None:
        self.changes.append((kind, asked))

    async def close(self) -> None:
        pass


def event(number: int, text: str = "", kind: str = "ready") -> dict[str, Any]:
    """Returns an event as the controller answers it."""
    return {"id": number, "at": "2026-01-01T00:00:00+00:00", "kind": kind, "text": text, "code": 0}


def frames(message: bytes) -> list[tuple[str, Any]]:
    """Splits server-sent events into (kind, data); comments are left out."""
    found = []
    for block in message.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found
