"""Rows of the tables of metrics, which are kept in the page so that it can be read without the site."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from docs.generators.markdown import code

PAGE = Path(__file__).resolve().parents[1] / "reference" / "metrics.md"

_ROW = re.compile(r"^\| `(jigsaw_\w+)` \|.*\|$", re.MULTILINE)


class Metric(NamedTuple):
    """A metric as the code describes it.

    Attributes:
        name: Full name, which ends with the unit.
        kind: Counter, gauge or histogram.
        labels: Names of its labels.
        meaning: Help of the metric: sentences with code in backticks.
    """

    name: str
    kind: str
    labels: Sequence[str]
    meaning: str


def rewritten(text: str, metrics: Iterable[Metric]) -> str:
    """Returns a part of the page in which the row of each metric says what the code says.

    Args:
        text: The part, with a row for each metric in the table where it belongs. What the rows say is replaced.
        metrics: All metrics that belong in the part.

    Raises:
        LookupError: A metric has no row, or more than one; or a row has no metric.
    """
    known = {metric.name: metric for metric in metrics}
    named = _ROW.findall(text)
    wrong = sorted({name for name in named if named.count(name) > 1} | set(named) ^ set(known))
    if wrong:
        raise LookupError(f"{wrong[0]} must be a metric with one row: | `{wrong[0]}` | |")
    return _ROW.sub(lambda row: _row(known[row[1]]), text)


def _row(metric: Metric) -> str:
    labels = ", ".join(map(code, metric.labels))
    return f"| {code(metric.name)} | {metric.kind} | {f'{labels} ' if labels else ''}| {metric.meaning} |"
