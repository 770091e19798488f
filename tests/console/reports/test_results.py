import json
from functools import cache
from typing import Any

import pytest

from jigsaw_triton.api.profiles import profile_figures
from jigsaw_triton.console.reports.results import MOST_CHANGES, result_page
from jigsaw_triton.console.reports.setup import Setup
from jigsaw_triton.errors import InputError
from tests.console.test_status import ONE
from tests.controller.worlds import profiled
from tests.fakes.pages import Page

BAD = "<b>x</b>"


def change(at_s: float, **given: Any) -> dict[str, Any]:
    return {"at_s": at_s, "seconds": 2.0, "generation": 2, "reason": BAD, "slices": 3, "failure": "", **given}


@cache
def setup(data: str) -> Setup:
    """A stand-in for the reading of a setup, of which the documents here have only the name."""
    assert data == "setup"
    made = profiled(ONE)
    profiles = profile_figures(made.wanted.profiles["app"], graph=made.wanted.graphs["app"], file="", modified=None)
    return Setup(made.plan, made.wanted.graphs, [profiles])


def simulation(changes: int = 2) -> dict[str, Any]:
    intervals = [
        {
            "from_s": 60 * i,
            "arrivals_rps": 10.0 + i,
            "peak_rps": 20.0,
            "capacity_rps": 25.0,
            "slices": 3.0,
            "accuracy": 0.97,
            "violations": 0.01 * i,
            "changes": 1,
        }
        for i in range(5)
    ]
    return {
        "seconds": 300,
        "requests": {"app": 3000.0, BAD: 0.0},
        "violations": {"app": 30.0, BAD: 0.0},
        "violation_share": 0.01,
        "mean_slices": 3.0,
        "slice_hours": 0.25,
        "intervals": intervals,
        "changes": [change(60.0 * i, failure="no room" if i else "") for i in range(changes)],
        "setup": "setup",
    }


def shown(document: Any) -> str:
    text = result_page(document, "result.json", setup)
    found = Page(text)
    found.check_alone()
    assert BAD not in text
    return found.text


@pytest.mark.slow
def test_a_simulation_shows_attainment_load_and_changes() -> None:
    text = shown(simulation())
    for words in (
        "it is a simulation",
        "app 3,000 30 99.0%",
        "0:04:00 14 20 25 3 0.970 4.00% 1",
        "0:01:00 2 failed: no room 2.0",
        BAD,
        "3,000, 1.000% of them violations",
        "Plan with the most slices",
        "Graph app",
        "Budgets and segments",
        "t0 on A100-80GB",
    ):
        assert words in text, words


def test_many_changes_are_counted() -> None:
    assert "5 more changes are in the result" in shown(simulation(MOST_CHANGES + 5))


def test_a_run_without_intervals_has_a_report() -> None:
    assert "Simulated deployment" in shown({**simulation(), "intervals": [], "changes": []})


@pytest.mark.parametrize(
    "document",
    [None, [], "text", {}, {"plan": 1}, {"intervals": [], "violations": {}}],
)
def test_another_document_is_refused(document: Any) -> None:
    with pytest.raises(InputError, match="no result that a report can show") as caught:
        result_page(document, "x.json", setup)
    assert caught.value.where == "x.json"
    assert "-o json" in caught.value.hint


@pytest.mark.parametrize(
    "broken",
    [
        {"intervals": [{}]},
        {"intervals": None},
        {"requests": [1]},
        {"changes": [{"at_s": "soon"}]},
        {"seconds": "long"},
        {"violations": {}},
        {"changes": [{"at_s": 1, "generation": 1, "failure": "", "slices": 1, "seconds": 1, "reason": "\ud800"}]},
    ],
)
def test_a_damaged_result_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the result is damaged"):
        result_page({**simulation(), **broken}, "x.json", setup)


def test_infinite_numbers_do_not_break_a_report() -> None:
    document = json.loads(json.dumps(simulation()).replace("20.0", "1e400"))
    assert "Simulated deployment" in shown(document)
