import pytest

from jigsaw_triton.graph.model import Variant
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.gateway_load import (
    CALL_US,
    MEGABYTE_US,
    REQUEST_US,
    TEXT_BYTES,
    VARYING,
    call_megabytes,
    gateway_load,
)
from tests.compiler.samples import every
from tests.fakes.graphs import chain, graph, task

FRAME = TensorType("FP32", (3, 500, 500))


def test_requests_calls_and_bytes_add_up() -> None:
    of = graph(
        [task("look", {"IMAGE": "inputs.FRAME"}, outputs={"LABEL": TensorType("INT64", (1,))})],
        {"LABEL": "look.LABEL"},
        inputs={"FRAME": FRAME},
    )
    load = gateway_load({of.name: of}, every(of))
    assert (load.requests_rps, load.calls_rps) == (100.0, 100.0)
    assert load.megabytes_s == pytest.approx(100 * (3.0 + 8e-6))
    spent_us = 100 * (REQUEST_US + CALL_US) + load.megabytes_s * MEGABYTE_US
    assert load.processors == pytest.approx(spent_us / 1e6)


def test_a_call_moves_its_inputs_and_outputs_with_a_size_assumed_where_none_is_known() -> None:
    crops = TensorType("FP32", (-1, 3, 10, 10))
    of = graph(
        [
            task(
                "look",
                {"IMAGE": "inputs.FRAME", "TEXT": "inputs.TEXT"},
                outputs={"CROPS": crops},
                of=[Variant("v0", 1.0, "emulated", yields={"CROPS": 4.5})],
            )
        ],
        {"CROPS": "look.CROPS"},
        inputs={"FRAME": TensorType("UINT8", (-1, -1, 3)), "TEXT": TensorType("BYTES", (1,))},
    )
    frame, rows = VARYING * VARYING * 3, 5 * 3 * 10 * 10 * 4
    assert call_megabytes(of, "look", "v0") == pytest.approx((frame + TEXT_BYTES + rows) / 1e6)


def test_tensors_of_unknown_size_are_omitted() -> None:
    of = graph(
        [task("read", {"TEXT": "inputs.TEXT"}, outputs={"LABEL": TensorType("INT64", (1,))})],
        {"LABEL": "read.LABEL"},
        inputs={"TEXT": TensorType("BYTES", (1,))},
    )
    load = gateway_load({of.name: of}, every(of))
    assert load.megabytes_s == pytest.approx(100 * 8e-6)


def test_every_task_of_a_chain_adds_its_calls() -> None:
    of = chain(3)
    assert gateway_load({of.name: of}, every(of)).calls_rps == 300.0
