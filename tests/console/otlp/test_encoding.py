"""Spans are encoded as OpenTelemetry's own classes decode them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

from jigsaw_triton.console.otlp.encoding import encoded, rejected, request
from jigsaw_triton.console.otlp.spans import Attribute, Kind, Span
from tests.fakes.otlp import decoded

SPAN = Span("gateway", bytes(15) + b"\1", bytes(7) + b"\2", bytes(7) + b"\3", "a=1", True, "infer g", Kind.SERVER, 5, 9)
RESOURCES: dict[str, dict[str, Attribute]] = {
    "gateway": {"service.name": "jigsaw-gateway"},
    "w": {"service.name": "jigsaw-worker", "big": 2**40},
}


def message(*spans: Span) -> bytes:
    return request([encoded(span) for span in spans], RESOURCES, ("jigsaw-triton", "1.0"))


def test_spans_are_grouped_by_server() -> None:
    attributes: dict[str, Attribute] = {"text": "é\0", "less": -3, "large": 2**62, "yes": True, "no": False, "": ""}
    child = replace(SPAN, server="w", parent=b"", remote=False, attributes=attributes, error="broken\n")
    root, other, inner = decoded(message(SPAN, child, SPAN))
    assert (root, other) == (root, root)
    assert (root.trace, root.id, root.parent, root.name) == ("0" * 31 + "1", "0" * 15 + "2", "0" * 15 + "3", "infer g")
    assert (root.kind, root.start_ns, root.end_ns, root.error, root.remote) == ("SERVER", 5, 9, None, True)
    assert root.state == "a=1"
    assert (root.resource, inner.resource) == (RESOURCES["gateway"], RESOURCES["w"])
    assert (inner.attributes, inner.error, inner.parent, inner.remote) == (attributes, "broken\n", "", False)


@pytest.mark.slow
@given(
    name=st.text(max_size=300),
    start=st.integers(1, 2**63),
    took=st.integers(0, 2**62),
    attributes=st.dictionaries(st.text(max_size=9), st.text(max_size=200) | st.integers(-(2**63), 2**63 - 1)),
    error=st.none() | st.text(max_size=200),
)
def test_any_span_survives(
    name: str, start: int, took: int, attributes: dict[str, str | int], error: str | None
) -> None:
    span = replace(SPAN, name=name, start_ns=start, end_ns=start + took, attributes=attributes, error=error)
    (found,) = decoded(message(span))
    assert (found.name, found.start_ns, found.end_ns) == (name, start, start + took)
    assert (found.attributes, found.error) == (attributes, error)


@pytest.mark.parametrize(("count", "text"), [(0, ""), (3, ""), (300, "x" * 500)])
def test_the_rejected_spans_of_an_answer_are_counted(count: int, text: str) -> None:
    partial = service.ExportTracePartialSuccess(rejected_spans=count, error_message=text)
    assert rejected(service.ExportTraceServiceResponse(partial_success=partial).SerializeToString()) == count


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>", b"\x0a", b"\x0a\xff\xff", b"\x0a\x02\x12\x00"])
def test_another_answer_counts_as_none(answer: bytes) -> None:
    assert rejected(answer) == 0
