"""Parser of the part of Prometheus' text format that Triton uses."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of /metrics.

    Attributes:
        name: Name of the metric: `nv_inference_request_success`.
        labels: Labels of the sample: `{"model": "traffic", "version": "1"}`.
        value: Value in the metric's own unit.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def parse_metrics(text: str, names: tuple[str, ...] = ("",)) -> tuple[Sample, ...]:
    """Parses the text of /metrics into samples in the same order, without comments.

    Args:
        text: Text of /metrics.
        names: Prefixes of the names of the samples to parse, which saves most of the time; by default all.

    Raises:
        ValueError: A line does not follow the format.
    """
    lines = (line for line in text.splitlines() if line.startswith(names))
    return tuple(_sample(line) for line in lines if line.strip() and not line.startswith("#"))


def _sample(line: str) -> Sample:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"not a metric: {line[:80]!r}")
    labels = {key: _ESCAPE.sub(_unescape, value) for key, value in _LABEL.findall(match["labels"] or "")}
    return Sample(match["name"], labels, float(match["value"]))


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
