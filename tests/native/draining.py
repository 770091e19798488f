"""Draining as the controller does it, from tests without an event loop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.controller.fleet.drain import DRAIN_INTERVAL_S, locked


@contextmanager
def drain(path: Path, timeout_s: float) -> Iterator[bool]:
    """Waits until the gateway does not use a model or a generation, and keeps it so until the `with` block ends.

    Yields:
        True unless the gateway still uses it at the timeout.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        with locked(path) as unused:
            if unused or time.monotonic() >= give_up_at:
                yield unused
                return
        time.sleep(DRAIN_INTERVAL_S)
