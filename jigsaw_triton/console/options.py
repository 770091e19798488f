"""Options of the controller's process, which it has from its start to its end.

They travel in the environment, so that a unit of systemd or a container can set them, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.logs import LOG_FORMATS, LogFormat

LOG_FORMAT, METRICS = "JIGSAW_LOG_FORMAT", "JIGSAW_CONTROLLER_METRICS"
"""Environment variables of the options."""

OPTION_FLAGS = {"log_format": "--log-format", "metrics": "--controller-metrics"}
"""Flags of `deploy` by the names of the options."""

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listen:
    """An address and a port to listen on.

    Attributes:
        address: Host name or IP address.
        port: TCP port.
    """

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Parses `8004`, `0.0.0.0:8004` or `[::]:8004`. Without an address it is the loopback's.

    Raises:
        ValueError: The text is none of these.
    """
    address, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16) or (colon and not address):
        raise ValueError(f"{text!r} is not a port, and not an address and a port")
    return Listen(address.strip("[]") or _LOOPBACK, int(port))


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """Options of the controller's process. One that is None has its default.

    Attributes:
        log_format: Form of the log's lines; text by default.
        metrics: Address and port of the controller's metrics; none by default.
    """

    log_format: LogFormat | None = None
    metrics: Listen | None = None

    def environment(self) -> dict[str, str]:
        """Returns the environment variables that set these options."""
        return {
            **({LOG_FORMAT: self.log_format} if self.log_format is not None else {}),
            **({METRICS: str(self.metrics)} if self.metrics is not None else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the options in effect, as `status -o json` prints them."""
        return {
            "log_format": self.log_format or LOG_FORMATS[0],
            "metrics": str(self.metrics) if self.metrics is not None else None,
        }


DEFAULTS = ProcessOptions()


def options_from(environment: Mapping[str, str]) -> ProcessOptions:
    """Returns the options that the environment sets.

    Raises:
        InputError: A variable has no valid value.
    """
    form, listen = environment.get(LOG_FORMAT) or None, environment.get(METRICS) or None
    return process_options(form, listen, where=(LOG_FORMAT, METRICS))


def process_options(
    log_format: str | None, metrics: str | int | None, *, where: tuple[str, str] = ("log_format", "controller_metrics")
) -> ProcessOptions:
    """Returns options.

    Args:
        log_format: Form of the log's lines; None for the default.
        metrics: Port for metrics, or address and port; None for none.
        where: Names of the two, for errors.

    Raises:
        InputError: There is no such form, or the port is none.
    """
    form = next((form for form in LOG_FORMATS if form == log_format), None)
    if log_format is not None and form is None:
        hint = f"choose {' or '.join(LOG_FORMATS)}"
        raise InputError(f"there is no log format {log_format!r}", where=where[0], hint=hint)
    try:
        return ProcessOptions(form, parse_listen(str(metrics)) if metrics is not None else None)
    except ValueError as error:
        raise InputError(str(error), where=where[1], hint="give 8004 or 0.0.0.0:8004, for example") from error
