"""Parts that the configurations of all HAProxies share. Pure functions without side effects."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CONFIG = "haproxy.cfg"
"""Name of HAProxy's main configuration file."""

_REASONS = {400: "Bad Request", 408: "Request Timeout", 413: "Payload Too Large", 429: "Too Many Requests"} | {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_AGAIN = (429, 502, 503)
"""Statuses after which a client may retry soon."""

Section = tuple[str, ...]
"""Heading of a section, followed by its lines."""


@dataclass(frozen=True, slots=True)
class Place:
    """Folder of a HAProxy, and resources that it may use.

    Attributes:
        folder: Folder for files and sockets, in the run directory.
        threads: Number of HAProxy's threads.
        files: Largest number of open file descriptors.
    """

    folder: Path
    threads: int = 1
    files: int = 2**16

    @property
    def admin(self) -> Path:
        """Path of the socket of HAProxy's runtime API, through which a reload hands over the listeners."""
        return self.folder / "admin.sock"


def configuration(sections: Iterable[Section]) -> str:
    """Returns the text of a configuration file."""
    return "\n".join("\n".join((head, *(f"    {line}" for line in lines), "")) for head, *lines in sections)


def process_lines(place: Place) -> tuple[str, ...]:
    """Returns the lines of the section `global` that make a process loggable, and a reload lossless."""
    return (
        "log stdout format raw local0 info",
        f"nbthread {place.threads}",
        f"stats socket {place.admin} mode 600 level admin expose-fd listeners",
    )


def reply(status: int, message: str) -> str:
    """Returns a rule that answers over HTTP with JSON in the form of Triton's errors."""
    body = json.dumps({"error": message}).replace('"', '\\"')
    return f'http-request return status {status} content-type application/json string "{body}"'


def http_error(status: int, message: str) -> str:
    """Returns a whole response with JSON in the form of Triton's errors, for the option `errorfile`."""
    body = json.dumps({"error": message})
    again = ("Retry-After: 1",) if status in _AGAIN else ()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-cache",
        *again,
    )
    return "\r\n".join((*head, "", body))
