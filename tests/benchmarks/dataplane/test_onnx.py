import json

from benchmarks.dataplane import onnx
from benchmarks.dataplane.client import OK, Reply
from benchmarks.dataplane.onnx import CLIENTS, outputs


def test_rates_are_relative_to_the_python_backend_in_the_same_round() -> None:
    ratios = (1.2, 2.0, 1.5)
    rates = {(kind, "python", n): [100.0, 200.0, 400.0] for kind in ("worker", "digits") for n in CLIENTS}
    rates |= {
        (kind, "onnxruntime", n): [part * base for part, base in zip(ratios, bases, strict=True)]
        for (kind, _, n), bases in rates.items()
    }
    found = {figure.id: figure for figure in onnx.figures(rates)}
    rate = found["dataplane.onnx.worker.rate.1_client"]
    assert (rate.value, rate.goal, rate.met, rate.baseline) == (1.5, ">= 1.3", True, 200)
    assert found["dataplane.onnx.digits.rate.32_clients"].goal is None


def test_no_answer_may_differ() -> None:
    assert onnx.different_figure(0).met
    assert not onnx.different_figure(1).met


def test_outputs_are_compared_by_name() -> None:
    def reply(**found: bytes) -> Reply:
        described = [{"name": n, "parameters": {"binary_data_size": len(data)}} for n, data in found.items()]
        return Reply(OK, json.dumps({"outputs": described}).encode(), b"".join(found.values()))

    assert outputs(reply(A=b"1", B=b"23")) == outputs(reply(B=b"23", A=b"1")) == {"A": b"1", "B": b"23"}
