"""Where a dispatcher may send batches: a JSON file, read again whenever its writer has replaced it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.spec import ROUTE_VERSION


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A model on a worker (the same as compiler.bundle.RouteEntry).

    Attributes:
        worker: Name; its socket is `workers/<worker>.sock` in the run directory.
        model: Model name on the worker.
        batch: Most items in one batch.
        slots: Batches it takes at a time.
        variant: Of the task.
        share: Of the task's items that the variant is to take, all its entries together; 0 where that does not matter.
        address: `host:port` of a worker on another host; empty for the socket.
    """

    worker: str
    model: str
    batch: int
    slots: int
    variant: str = ""
    share: float = 0.0
    address: str = ""


class Route:
    """The entries of `routes/<dispatcher>.json`.

    Args:
        path: The file; its writer replaces it by rename.
        log: Told when the file cannot be read; the entries read before stay in force then.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self._path = path
        self._log = log
        self._version: tuple[int, int, int] | None = None
        self._entries: tuple[RouteEntry, ...] = ()

    @property
    def entries(self) -> tuple[RouteEntry, ...]:
        """As last read."""
        return self._entries

    def refresh(self) -> bool:
        """Reads the file if it is another than before; whether the entries changed."""
        try:
            version = self._stat()
            if version == self._version:
                return False
            self._version = version
            entries = parse_route(self._path.read_text())
        except (OSError, ValueError) as error:
            self._log(f"route {self._path.name} cannot be read, keeping {len(self._entries)} entries: {error}")
            return False
        changed = entries != self._entries
        self._entries = entries
        return changed

    def _stat(self) -> tuple[int, int, int]:
        """What tells one file from another; zeros where there is none."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 half the price, and it is paid for each batch
        except FileNotFoundError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_size)


def parse_route(text: str) -> tuple[RouteEntry, ...]:
    """Reads a route file.

    Raises:
        ValueError: It is not of ROUTE_VERSION or not well formed; says what is wrong.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != ROUTE_VERSION:
        raise ValueError(f"version is not {ROUTE_VERSION}")
    workers = data.get("workers")
    if not isinstance(workers, list):
        raise ValueError("workers is not a list")
    return tuple(_entry(index, item) for index, item in enumerate(workers))


def _entry(index: int, item: Any) -> RouteEntry:
    where = f"workers[{index}]"
    if not isinstance(item, dict):
        raise ValueError(f"{where} is not an object")
    for field in ("worker", "model"):
        name = item.get(field)
        if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
            raise ValueError(f"{where}.{field} is not a name: {name!r}")
    for field in ("batch", "slots"):
        count = item.get(field)
        if type(count) is not int or count < 1:
            raise ValueError(f"{where}.{field} is not a positive integer: {count!r}")
    for field in ("variant", "address"):
        if not isinstance(item.get(field, ""), str):
            raise ValueError(f"{where}.{field} is not a string: {item[field]!r}")
    share = item.get("share", 0.0)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise ValueError(f"{where}.share is not a number from 0 to 1: {share!r}")
    try:
        return RouteEntry(**item)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None
