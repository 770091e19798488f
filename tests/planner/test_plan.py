"""Reading plans that somebody else has written."""

from typing import Any

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.plan import plan_from_json

MODEL = {"graph": "app", "task": "t", "variant": "v", "instances": 1, "batch": 4}


def document(*, node: Any = "a", **model: Any) -> dict[str, Any]:
    layout = [{"slice": "1g", "start": 0, "models": [{**MODEL, **model}]}]
    return {
        "version": 1,
        "graphs": {},
        "gpus": [{"node": node, "index": 0, "model": "cpu", "layout": layout}],
        "slices_used": 1,
        "slices_total": 7,
        "gpus_used": 1,
        "features": "AST",
        "formulation": "exact",
        "latency_model": "2p95",
        "solver": {"name": "HiGHS", "status": "optimal", "seconds": 0.1, "gap": 0.0},
    }


def test_a_plan_is_read() -> None:
    assert plan_from_json(document(), where="plan.json").gpus[0].layout[0].models[0].batch == 4


@pytest.mark.parametrize("node", ["../../elsewhere", "/a", "", "a b", 7])
def test_a_node_is_no_path(node: Any) -> None:
    with pytest.raises(InputError, match="the plan is damaged"):
        plan_from_json(document(node=node), where="plan.json")


@pytest.mark.parametrize("model", [{"batch": 10**12}, {"instances": -1}, {"batch": 1.5}, {"batch": "4"}, {"kind": 1}])
def test_a_model_that_cannot_be_is_refused(model: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the plan is damaged"):
        plan_from_json(document(**model), where="plan.json")
