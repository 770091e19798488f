"""Reads HAProxy's view of the nodes. Pure functions without side effects."""

import csv

_CERTIFICATES = (
    "refuses the TLS handshake, or shows a certificate of another node or authority, or one that has expired"
)
_REASONS = {
    "L4CON": "refuses the connection",
    "L4TOUT": "does not answer",
    "L6TOUT": "does not answer",
    "L6RSP": _CERTIFICATES,
    "L7TOUT": "does not answer",
    "L7STS": "is another node than the one of this name",
}
"""Result of a health check -> what the node does."""


def parse_health(text: str) -> dict[str, str]:
    """Parses the servers in HAProxy's statistics.

    Args:
        text: Answer to `show stat -1 4 -1`.

    Returns:
        Name of each node -> reason why it cannot be called; empty if it can, or was not checked yet.
    """
    return {row["svname"]: _reason(row) for row in csv.DictReader(text.removeprefix("# ").splitlines())}


def _reason(row: dict[str, str]) -> str:
    if row["status"].startswith("UP"):
        return ""
    if row["status"].startswith("MAINT"):
        return "has a host name that was unknown when the transport last started or reloaded"
    # A check that is in progress has an asterisk.
    code = row["check_status"].removeprefix("* ")
    return _REASONS.get(code, f"fails its health check ({code}: {row['last_chk']})")
