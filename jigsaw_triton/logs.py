"""Form of the lines that this project's own processes log: text for people, or JSON for programs.

A line of JSON is an object with `time`, `level`, `logger` and `message`, with `generation`, `worker` and `request`
where they are known, and with `error` if there is a traceback.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")

FIELDS = ("generation", "worker", "request")
"""Fields that say what a line is about. `generation` is the one that a change leads to, else the one that serves, and
`request` the number that a controller gives its request to an agent."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_process: dict[str, Any] = {}
"""Fields of all lines of this process."""

_about: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039 - it is never changed in place


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Sets fields of all lines that are logged meanwhile, and by the tasks that are created meanwhile.

    Args:
        fields: Values by the names in `FIELDS`; None for an unknown one.
    """
    token = _about.set({**_about.get(), **_known(fields)})
    try:
        yield
    finally:
        _about.reset(token)


def about_process(**fields: Any) -> None:
    """Sets fields of all lines that this process will log.

    Args:
        fields: Values by the names in `FIELDS`; None to remove one.
    """
    for name in fields:
        _process.pop(name, None)
    _process.update(_known(fields))


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def formatter(form: LogFormat) -> logging.Formatter:
    """Returns the formatter of a log."""
    return _JsonFormatter() if form == "json" else logging.Formatter(_TEXT)


def log_to_stderr(form: LogFormat) -> None:
    """Has this process log to its standard error.

    Args:
        form: Form of the lines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def final_entry(form: LogFormat, logger: str, message: str, error: str = "") -> str:
    """Returns the line that a process writes to its standard error when it ends by itself, without a log.

    Args:
        form: Form of the line.
        logger: Name of the module.
        message: Sentence that says why the process ends.
        error: Traceback, if there is one; as text it stands for the message.
    """
    if form == "text":
        return error or message
    return _json_line(time.time(), "CRITICAL", logger, message, error)


def readable(line: str) -> str:
    """Returns a line of a log as text; a line that is not JSON of this project stays as it is."""
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
        head = f"{entry['time']} {entry['level']} {entry['logger']}: {entry['message']}"
    except (ValueError, TypeError, KeyError):
        return line
    known = ", ".join(f"{name} {entry[name]}" for name in FIELDS if name in entry)
    error = f"\n{entry['error']}" if "error" in entry else ""
    return f"{head}{f' ({known})' if known else ''}{error}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        given = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        error = self.formatException(record.exc_info) if record.exc_info else ""
        return _json_line(record.created, record.levelname, record.name, record.getMessage(), error, given)


def _json_line(
    at_s: float, level: str, logger: str, message: str, error: str = "", given: Mapping[str, Any] = MappingProxyType({})
) -> str:
    written = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry = {"time": written, "level": level, "logger": logger, "message": message, **_process, **_about.get(), **given}
    return json.dumps({**entry, "error": error} if error else entry, default=str)
