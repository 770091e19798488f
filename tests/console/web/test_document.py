from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.console.web.document import ABSENT, document, with_finished_stages
from jigsaw_triton.console.web.measured import Measured, Service, Times

VIEW: dict[str, Any] = {
    **ABSENT,
    "graphs": {
        "g": {
            "arrivals_rps": 3.0,
            "tasks": {
                "a": {"variants": {"v": {"accuracy": 1.0}, "w": {"accuracy": 0.9}}},
                "b": {"variants": {"v": {"accuracy": 1.0}}},
            },
            "edges": [
                {"from": "inputs", "to": "a"},
                {"from": "a", "to": "b"},
                {"from": "b", "to": "graph outputs"},
            ],
        }
    },
    "workers": {"w0": {"state": "ready", "models": [{"graph": "g", "task": "a", "variant": "v"}]}},
}
MEASURED = Measured(
    {("g", "a"): Times(8.0, 5.00004, None, 1.0), ("g", "b"): Times(24.0, 1.0, 2.0, 0.0)},
    {("g", "a", "v"): Times(6.0, 4.0, 9.0)},
    {("w0", "g", "a", "v"): Service(2.0, 10.0, None)},
)
SAMPLE = {"t": 5.0, "slices": 3, "graphs": {"g": {"arrivals_rps": 9.0, "served_rps": 8.0}}}


def test_measurements_are_in_their_places() -> None:
    state = document(VIEW, MEASURED, SAMPLE, 7.0)
    graph = state["graphs"]["g"]
    assert (state["now"], graph["arrivals_rps"]) == (7.0, 9.0)
    assert graph["tasks"]["a"]["measured"] == {"rate_rps": 8.0, "p50_ms": 5.0, "p99_ms": None, "queue_ms": 1.0}
    variants = graph["tasks"]["a"]["variants"]
    assert variants["v"]["share_measured"] == 0.75
    assert variants["v"]["measured"] == {"rate_rps": 6.0, "p50_ms": 4.0, "p99_ms": 9.0}
    assert (variants["w"]["share_measured"], variants["w"]["measured"]) == (0.0, None)
    first, second, last = graph["edges"]
    assert (first["rate_rps"], first["fan_out_measured"]) == (8.0, 1.0)
    assert (second["rate_rps"], second["fan_out_measured"]) == (24.0, 3.0)
    assert (last["rate_rps"], last["fan_out_measured"]) == (8.0, None)
    (model,) = state["workers"]["w0"]["models"]
    assert model["measured"] == {"batches_rps": 2.0, "mean_ms": 10.0, "slowdown": None}


def test_the_fan_out_of_the_inputs_is_measured_over_the_same_seconds_as_the_tasks() -> None:
    state = document(VIEW, replace(MEASURED, answered_rps={"g": 4.0}), SAMPLE, 7.0)
    first, _, last = state["graphs"]["g"]["edges"]
    assert first["fan_out_measured"] == 2.0
    assert last["rate_rps"] == 4.0


def test_without_measurements_the_view_is_kept() -> None:
    state = document(VIEW, Measured(), None, 7.0)
    graph = state["graphs"]["g"]
    assert graph["arrivals_rps"] == 3.0
    assert graph["tasks"]["a"]["measured"] is None
    assert graph["tasks"]["a"]["variants"]["v"]["share_measured"] is None
    assert graph["edges"][1]["fan_out_measured"] is None


def change(*stages: str, to: int = 2) -> dict[str, Any]:
    return {"from": 1, "to": to, "why": "load", "stages": list(stages), "at": 0}


def test_stages_that_have_ended_are_kept() -> None:
    shown = None
    for left, at in ((("x", "y", "z"), 0), (("y", "z"), 1), (("z",), 2), (("z",), 2)):
        shown = with_finished_stages(shown, change(*left))
        assert shown is not None
        assert (shown["stages"], shown["at"]) == (["x", "y", "z"], at)
    assert with_finished_stages(shown, None) is None


@pytest.mark.parametrize("other", [change("p", "q", to=3), change("p", "q", to=0)])
def test_another_change_begins_anew(other: dict[str, Any]) -> None:
    assert with_finished_stages(change("x", "y"), other) == other


def test_stages_that_were_computed_anew_follow_those_that_have_ended() -> None:
    shown = with_finished_stages(change("x", "y", "z"), change("u", "v", "w", "z"))
    assert shown is not None
    assert (shown["stages"], shown["at"]) == (["x", "u", "v", "w", "z"], 1)
