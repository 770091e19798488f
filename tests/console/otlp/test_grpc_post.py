"""Messages are sent by gRPC to OpenTelemetry's own service."""

from collections.abc import Callable

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

from jigsaw_triton.console.otlp import grpc_post
from jigsaw_triton.console.otlp.grpc_post import GrpcPost
from jigsaw_triton.console.otlp.sender import RefusedError, RetryLaterError, post
from tests.console.otlp.test_encoding import SPAN
from tests.console.otlp.test_sender import MESSAGE
from tests.e2e.system import free_ports
from tests.fakes.otlp import GrpcReceiver, Receiver

Answer = Callable[[int, grpc.ServicerContext], service.ExportTraceServiceResponse]


def test_a_message_is_posted() -> None:
    with GrpcReceiver() as receiver:
        assert GrpcPost(receiver.endpoint)(MESSAGE) == 0
        (span,) = receiver.spans
    assert (span.name, span.state) == (SPAN.name, SPAN.state)


def test_rejected_spans_of_an_accepted_message_are_counted() -> None:
    partial = service.ExportTracePartialSuccess(rejected_spans=1)
    with GrpcReceiver(lambda *_: service.ExportTraceServiceResponse(partial_success=partial)) as receiver:
        assert GrpcPost(receiver.endpoint)(MESSAGE) == 1


def aborting(code: grpc.StatusCode, *details: tuple[str, bytes]) -> Answer:
    def answer(_: int, context: grpc.ServicerContext) -> service.ExportTraceServiceResponse:
        context.set_trailing_metadata(details)
        context.abort(code, "not now")
        raise AssertionError("abort raises an exception")

    return answer


RETRY_INFO = ("grpc-status-details-bin", b"\x08\x08\x1a\x29\x0a\x27type.googleapis.com/google.rpc.RetryInfo")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (aborting(grpc.StatusCode.UNAVAILABLE), RetryLaterError),
        (aborting(grpc.StatusCode.RESOURCE_EXHAUSTED), RefusedError),
        (aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, RETRY_INFO), RetryLaterError),
        (aborting(grpc.StatusCode.UNIMPLEMENTED), RefusedError),
    ],
)
def test_a_status_says_whether_to_try_again(answer: Answer, error: type[Exception]) -> None:
    with GrpcReceiver(answer) as receiver, pytest.raises(error, match=r"grpc://.* answers [A-Z_]+: not now"):
        GrpcPost(receiver.endpoint)(MESSAGE)


def test_an_endpoint_that_is_not_there_may_come_back() -> None:
    (port,) = free_ports(1)
    with pytest.raises(RetryLaterError, match=r"answers UNAVAILABLE: .*refused"):
        GrpcPost(f"grpc://127.0.0.1:{port}")(MESSAGE)


def test_an_endpoint_that_speaks_the_other_protocol_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # gRPC may try to connect again until the call times out.
    monkeypatch.setattr(grpc_post, "TIMEOUT_S", 0.5)
    with Receiver() as receiver, pytest.raises(RetryLaterError, match=r"answers (UNAVAILABLE|DEADLINE_EXCEEDED)"):
        GrpcPost(receiver.endpoint.replace("http", "grpc"))(MESSAGE)
    with GrpcReceiver() as receiver, pytest.raises(RetryLaterError, match="if it speaks gRPC, write grpc://"):
        post(receiver.endpoint.replace("grpc", "http") + "/v1/traces", MESSAGE)
