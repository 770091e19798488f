"""The page of metrics, which says what the code says."""

import os
from collections.abc import Sequence

from docs.generators.metrics import PAGE, Metric, rewritten

CONTROLLER = "## Controller"
"""Heading that divides the page: above it are the gateway's metrics, below it the controller's."""


def parts() -> tuple[str, str]:
    """Returns the part of the gateway and that of the controller."""
    gateway, heading, controller = PAGE.read_text().partition(CONTROLLER)
    return gateway, heading + controller


def check_page(metrics: Sequence[Metric], *, controller: bool) -> None:
    """Compares a part of the page with the metrics, or writes it if JIGSAW_GOLDEN is `write`."""
    gateway, below = parts()
    wanted = (gateway, rewritten(below, metrics)) if controller else (rewritten(gateway, metrics), below)
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        PAGE.write_text("".join(wanted))
    assert parts() == wanted
