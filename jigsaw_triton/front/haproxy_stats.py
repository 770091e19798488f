"""Reads HAProxy's view of a front's servers. Pure functions without side effects."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerState:
    """State of a server in a backend.

    Attributes:
        up: True if it passed its last health check, or was not checked yet.
        weight: Present weight of the server.
        requests: Requests that were sent to it since HAProxy started.
        in_flight: Requests that are in progress there.
        reason: Result of the last health check if it is down, in HAProxy's words; empty if it is up.
    """

    up: bool
    weight: int
    requests: int
    in_flight: int
    reason: str = ""


Servers = Mapping[tuple[str, str], ServerState]
"""(backend, server) -> its state."""


def parse_servers(text: str) -> dict[tuple[str, str], ServerState]:
    """Parses the servers in HAProxy's statistics.

    Args:
        text: Answer to `show stat -1 4 -1`.
    """
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    return {(row["pxname"], row["svname"]): _state(row) for row in rows if row.get("svname")}


def _state(row: Mapping[str, str]) -> ServerState:
    # A server whose weight is 0 is DRAIN, and takes requests again once it has a weight.
    up = row["status"].startswith(("UP", "no check", "DRAIN"))
    check = " ".join(filter(None, (row["check_status"].removeprefix("* "), row["last_chk"])))
    reason = "" if up else check or row["status"]
    return ServerState(up, int(row["weight"] or 0), int(row["stot"] or 0), int(row["scur"] or 0), reason)
