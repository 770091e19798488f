"""docs/reference/metrics.md says which metrics the compiled backend has."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.native.conftest import Bench
from tests.native.core import eventually
from tests.native.specs import ONE, spec, task

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
ROWS = ("INT64", (-1, 1))


class Described(NamedTuple):
    kind: str
    labels: frozenset[str]


@pytest.fixture
def found(bench: Bench) -> dict[str, Described]:
    """Metric -> its kind, and the labels of all of its series, of a graph that has everything."""
    tasks = [
        task("split", outputs={"R": ROWS}, yields=("R",), variants=("small",)),
        task(
            "each",
            {"X": ("split.R", ONE)},
            mode="rows",
            iterated=("X",),
            condition={"tensor": "inputs.X", "above": 0.5, "below": None},
        ),
        task("step", step=True, mode="items", outputs={"R": ROWS}, yields=("R",)),
    ]
    bench.engine.front(spec(tasks, outputs={"Y": ("each.Y", ROWS)}))
    labels: dict[str, set[str]] = {}
    kinds: dict[str, str] = {}
    for series in bench.engine.series:
        kinds[series["name"]] = series["kind"]
        labels.setdefault(series["name"], set()).update(series["labels"])
    return {name: Described(kind, frozenset(labels[name])) for name, kind in kinds.items()}


def test_the_page_has_every_metric_with_its_kind_and_labels(found: dict[str, Described]) -> None:
    rows = re.findall(r"^\| `(jigsaw_\w+)` \| (\w+) \| (.*?) \|", PAGE, re.MULTILINE)
    described = {name: Described(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(described) == len(rows)
    assert described == found


def test_gauges_of_a_graph_that_is_gone_are_zero(bench: Bench) -> None:
    bench.worker()
    bench.route("w", slots=3)
    old, new = bench.front(capacity_rps=50.0), bench.front(capacity_rps=50.0)
    eventually(lambda: bench.engine.metric("jigsaw_slots") == 3)
    old.close()
    assert bench.engine.metric("jigsaw_capacity_rps") == 50
    assert bench.engine.metric("jigsaw_slots") == 3
    new.close()
    assert bench.engine.metric("jigsaw_capacity_rps") == 0
    assert bench.engine.metric("jigsaw_slots") == 0


@pytest.mark.parametrize(("metric", "label"), [("jigsaw_refused_total", "reason"), ("jigsaw_slo_total", "outcome")])
def test_the_page_explains_every_value_of_a_label(bench: Bench, metric: str, label: str) -> None:
    bench.front()
    values = {series["labels"][label] for series in bench.engine.series if series["name"] == metric}
    assert len(values) >= 3
    assert sorted(value for value in values if f"`{value}`" not in PAGE) == []
