"""Tests of reading plans that somebody else has written."""

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.domain.plan import PlanCost, PlanSurvival, plan_to_text
from jigsaw_triton.planner.domain.plan_reader import plan_from_json

pytestmark = pytest.mark.slow

MODEL = {"graph": "app", "task": "t", "variant": "v", "instances": 1, "batch": 4}

SEGMENT = {"variant": "v", "slice": "1g", "instances": 1, "batch": 4, "count": 1, "share": 1.0}
GRAPH = {
    "demand_rps": 20.0,
    "capacity_rps": 30.0,
    "accuracy": 1.0,
    "latency_ms": 40.0,
    "tasks": {"t": {"budget_ms": 50.0, "rate_rps": 20.0, "segments": [SEGMENT]}},
}

Path = tuple[str | int, ...]


def document(*, node: Any = "a", **model: Any) -> dict[str, Any]:
    layout = [{"slice": "1g", "start": 0, "models": [{**MODEL, **model}]}]
    return {
        "version": 1,
        "graphs": {"app": GRAPH},
        "gpus": [{"node": node, "index": 0, "model": "cpu", "layout": layout}],
        "slices_used": 1,
        "slices_total": 7,
        "gpus_used": 1,
        "features": "AST",
        "formulation": "exact",
        "latency_model": "2p95",
        "solver": {"name": "HiGHS", "status": "optimal", "seconds": 0.1, "gap": 0.0},
    }


def test_a_valid_plan_is_read() -> None:
    assert plan_from_json(document(), where="plan.json").gpus[0].layout[0].models[0].batch == 4


def test_cost_and_survival_are_read_as_they_were_written() -> None:
    plain = plan_from_json(document(), where="plan.json")
    assert (plain.cost, plain.survival) == (None, None)
    full = replace(
        plain,
        cost=PlanCost(1.5, 4.0, "given", "per hour"),
        survival=PlanSurvival("rack", 0.5, {"app": 10.0}, more_slices=2, more_cost=None),
    )
    assert plan_from_json(json.loads(plan_to_text(full)), where="plan.json") == full


@pytest.mark.parametrize("node", ["../../elsewhere", "/a", "", "a b", 7])
def test_a_node_name_must_not_be_a_path(node: Any) -> None:
    with pytest.raises(InputError, match="the plan is damaged"):
        plan_from_json(document(node=node), where="plan.json")


@pytest.mark.parametrize("model", [{"batch": 10**12}, {"instances": -1}, {"batch": 1.5}, {"batch": "4"}, {"kind": 1}])
def test_an_invalid_model_is_rejected(model: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the plan is damaged"):
        plan_from_json(document(**model), where="plan.json")


def edited(path: Path, value: Any) -> dict[str, Any]:
    """The document with another value at a path."""
    data = copy.deepcopy(document())
    at: Any = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


SLICE_PATH: Path = ("gpus", 0, "layout", 0)
MODEL_PATH: Path = (*SLICE_PATH, "models", 0)
SEGMENT_PATH: Path = ("graphs", "app", "tasks", "t", "segments", 0)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ((*SLICE_PATH, "slice"), ["1g"], "gpus[0].layout[0].slice: ['1g'] is none of 1g, 1gx2"),
        ((*SLICE_PATH, "slice"), 1, "gpus[0].layout[0].slice: 1 is none of"),
        ((*SLICE_PATH, "slice"), "9g", "gpus[0].layout[0].slice: '9g' is none of"),
        ((*SLICE_PATH, "start"), 1.5, "gpus[0].layout[0].start: 1.5 is not an integer"),
        ((*SLICE_PATH, "start"), True, "gpus[0].layout[0].start: True is not an integer"),
        ((*SLICE_PATH, "models"), {}, "gpus[0].layout[0].models: {} is not a list"),
        ((*MODEL_PATH, "task"), ["t"], "gpus[0].layout[0].models[0].task: ['t'] is not a name"),
        ((*MODEL_PATH, "graph"), 7, "gpus[0].layout[0].models[0].graph: 7 is not a name"),
        ((*MODEL_PATH, "variant"), None, "gpus[0].layout[0].models[0].variant: None is not a name"),
        ((*SEGMENT_PATH, "share"), "1", "graphs.app.tasks.t.segments[0].share: '1' is not a number from 0 to 1"),
        ((*SEGMENT_PATH, "share"), None, "graphs.app.tasks.t.segments[0].share"),
        ((*SEGMENT_PATH, "share"), [1], "graphs.app.tasks.t.segments[0].share"),
        ((*SEGMENT_PATH, "share"), math.nan, "graphs.app.tasks.t.segments[0].share: nan is not"),
        ((*SEGMENT_PATH, "share"), -5, "graphs.app.tasks.t.segments[0].share: -5 is not"),
        ((*SEGMENT_PATH, "variant"), ["v"], "graphs.app.tasks.t.segments[0].variant"),
        ((*SEGMENT_PATH, "kind"), 1, "graphs.app.tasks.t.segments[0]: 'kind' is unknown"),
        (("gpus", 0, "index"), math.inf, "gpus[0].index: inf is not an integer"),
        (("gpus", 0, "index"), -1, "gpus[0].index: -1 is not an integer"),
        (("gpus", 0, "index"), 10**30, "gpus[0].index"),
        (("gpus", 0, "model"), 5, "gpus[0].model: 5 is not a word"),
        (("gpus", 0, "model"), [1], "gpus[0].model"),
        (("gpus",), document()["gpus"] * 2, "gpus[1]: GPU a/0 is listed twice"),
        (("gpus",), {}, "gpus: {} is not a list"),
        (("gpus",), [{}], "gpus[0].node: missing"),
        (("graphs", "app", "demand_rps"), math.nan, "graphs.app.demand_rps: nan is not a number of at least 0"),
        (("graphs", "app", "demand_rps"), 10**400, "graphs.app.demand_rps"),
        (("graphs", "../x"), {}, "graphs: '../x' is not a name"),
        (("features",), 5, "features: 5 is none of"),
        (("features",), "AX", "features: 'AX' is none of"),
        (("solver",), [], "solver: [] is not an object"),
    ],
)
def test_an_error_gives_the_path_of_the_damaged_value(path: Path, value: Any, error: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"plan.json: the plan is damaged ({error}")) as caught:
        plan_from_json(edited(path, value), where="plan.json")
    assert (caught.value.hint, caught.value.exit_code) == ("plan again", 2)


@pytest.mark.parametrize("version", [True, 1.0, "1", 2, None])
def test_the_version_must_be_an_integer(version: Any) -> None:
    with pytest.raises(InputError, match="plan version"):
        plan_from_json(edited(("version",), version), where="plan.json")


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of all values in a document, except the document itself."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, key))


PATHS = [*paths_of(document())]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1g", "a", 1, 0.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(path=st.sampled_from(PATHS), value=ANY_JSON)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_any_value_anywhere_is_rejected_or_read(path: Path, value: Any) -> None:
    try:
        plan = plan_from_json(edited(path, value), where="plan.json")
    except InputError:
        event("rejected")
        return
    event("read")
    assert plan_from_json(json.loads(plan_to_text(plan)), where="plan.json") == plan
