import pytest

from jigsaw_triton.servers.metrics import Sample, parse_metrics

TEXT = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="traffic.detect.g1",version="1"} 97
nv_inference_request_failure{model="traffic",reason="OTHER",version="1"} 1.474e+03
nv_pinned_memory_pool_used_bytes 0

jigsaw_latency_ms{path="C:\\\\new \\"x\\" {1},",unit="ms"} +Inf 1395066363000
"""


def test_samples_are_parsed_in_order() -> None:
    assert parse_metrics(TEXT) == (
        Sample("nv_inference_request_success", {"model": "traffic.detect.g1", "version": "1"}, 97.0),
        Sample("nv_inference_request_failure", {"model": "traffic", "reason": "OTHER", "version": "1"}, 1474.0),
        Sample("nv_pinned_memory_pool_used_bytes", {}, 0.0),
        Sample("jigsaw_latency_ms", {"path": 'C:\\new "x" {1},', "unit": "ms"}, float("inf")),
    )


def test_only_samples_with_certain_names_are_parsed() -> None:
    samples = parse_metrics(TEXT, ("nv_inference_request_f", "jigsaw_"))
    assert [sample.name for sample in samples] == ["nv_inference_request_failure", "jigsaw_latency_ms"]


def test_text_that_is_not_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="not a metric"):
        parse_metrics("<html>not found</html>")
