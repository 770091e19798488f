"""Metrics of a controller in Prometheus' text format, from its status."""

from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4"


def exposition(status: Mapping[str, Any]) -> str:
    """Returns the metrics.

    Args:
        status: Result of `status.snapshot`.
    """
    return "".join(_lines(status))


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    yield _gauge("serving", "1 if all graphs are served.", status["serving"])
    yield _gauge("degraded", "1 if a server is missing or the journal is incomplete.", status["degraded"])
    yield _gauge("journal_incomplete", "1 if the journal cannot be written.", status["journal_incomplete"])
    if (otlp := status.get("otlp")) is not None:
        yield "# HELP jigsaw_spans_total Spans of traces, by outcome.\n# TYPE jigsaw_spans_total counter\n"
        for outcome, count in {"exported": otlp["exported"], **otlp["dropped"]}.items():
            yield f'jigsaw_spans_total{{outcome="{outcome}"}} {count}\n'


def _gauge(name: str, meaning: str, value: bool) -> str:
    full = f"jigsaw_controller_{name}"
    return f"# HELP {full} {meaning}\n# TYPE {full} gauge\n{full} {int(value)}\n"
