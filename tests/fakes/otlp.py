"""Receivers of OTLP that decode strictly, with the classes generated from OpenTelemetry's own protocol."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1 import trace_pb2 as proto

from tests.waiting import WAIT_LIMIT_S

_POLL_S = 0.02

Answer = tuple[int, bytes]
"""Status and body of an answer."""


@dataclass(frozen=True, slots=True)
class Received:
    """A span that was received.

    Attributes:
        resource: Attributes of the server that it is of.
        trace: Id of its trace, in hexadecimal digits.
        id: Id of the span, in hexadecimal digits.
        parent: Id of its parent; empty for none.
        state: State of its trace.
        name: Name.
        kind: `INTERNAL`, `SERVER` or `CLIENT`.
        start_ns: Start, in nanoseconds since 1970.
        end_ns: End.
        attributes: Attributes.
        error: Message of an error; None if the status is not an error.
        remote: True if the parent is in another process.
    """

    resource: Mapping[str, Any]
    trace: str
    id: str
    parent: str
    state: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    error: str | None
    remote: bool


def decoded(data: bytes) -> list[Received]:
    """Decodes a message, and checks that it has no unknown field and that each span is valid."""
    message = service.ExportTraceServiceRequest.FromString(data)
    _check_known(message)
    found = []
    for group in message.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            assert scope.scope.name == "jigsaw-triton"
            assert scope.scope.version
            found += [_received(resource, span) for span in scope.spans]
    return found


def _received(resource: Mapping[str, Any], span: Any) -> Received:
    assert len(span.trace_id) == 16
    assert any(span.trace_id)
    assert len(span.span_id) == 8
    assert any(span.span_id)
    assert len(span.parent_span_id) in (0, 8)
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert span.flags & 0x101 == 0x101
    failed = span.status.code == proto.Status.STATUS_CODE_ERROR
    return Received(
        resource,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.name,
        proto.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        span.status.message if failed else None,
        bool(span.flags & proto.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    assert len(found) == len(pairs), "an attribute occurs twice"
    return found


def _check_known(message: Message) -> None:
    assert not len(UnknownFieldSet(message))
    for _, value in message.ListFields():
        for item in value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]:
            if isinstance(item, Message):
                _check_known(item)


def accepted(_: int) -> Answer:
    """Accepts every message."""
    return 200, b""


class Spans:
    """Spans that a receiver has got."""

    def __init__(self) -> None:
        self.requests = 0
        self._spans: list[Received] = []
        self._errors: list[str] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[Received]:
        """Spans received so far."""
        with self._lock:
            assert not self._errors, self._errors
            return list(self._spans)

    def wait(self, found: Callable[[list[Received]], bool], what: str) -> list[Received]:
        """Waits until the spans are as wanted, and returns them."""
        for spans in self._changes():
            if found(spans):
                return spans
        raise AssertionError(f"{what}: there are {[(span.trace, span.name) for span in self.spans]}")

    def _changes(self) -> Iterator[list[Received]]:
        give_up_s = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < give_up_s:
            yield self.spans
            time.sleep(_POLL_S)

    def _next(self) -> int:
        """Returns the number of a message."""
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
        return number

    def _keep(self, data: bytes) -> bool:
        """Keeps the spans of a message. Returns False if it is not valid."""
        try:
            spans = decoded(data)
        except Exception as error:
            return self._fail(error)
        with self._lock:
            self._spans += spans
        return True

    def _fail(self, error: Exception) -> bool:
        with self._lock:
            self._errors.append(repr(error))
        return False


class Receiver(Spans):
    """A receiver of OTLP over HTTP that listens until the `with` block ends.

    Args:
        answer: Function that returns the answer to the message of a number, from 0 on. Spans of messages that it does
            not answer with 200 are not kept.
        port: Port to listen on; 0 for a free one.
    """

    def __init__(self, answer: Callable[[int], Answer] = accepted, port: int = 0) -> None:
        super().__init__()
        self.answer = answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._handle(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        assert not self._errors, self._errors

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        data = request.rfile.read(int(request.headers["Content-Length"]))
        status, body = self.answer(self._next())
        try:
            assert request.path == "/v1/traces"
            assert request.headers["Content-Type"] == "application/x-protobuf"
        except AssertionError as error:
            self._fail(error)
        if status == 200 and not self._keep(data):
            status = 400
        try:
            request.send_response(status)
            request.send_header("Content-Type", "application/x-protobuf")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # The exporter was killed, or did not wait for the answer.


def taken(_: int, __: grpc.ServicerContext) -> service.ExportTraceServiceResponse:
    """Accepts every message."""
    return service.ExportTraceServiceResponse()


class GrpcReceiver(Spans):
    """A receiver of OTLP over gRPC, with OpenTelemetry's own service, that listens until the `with` block ends.

    Args:
        answer: Function that returns the answer to the message of a number, from 0 on, or aborts its call.
    """

    def __init__(
        self, answer: Callable[[int, grpc.ServicerContext], service.ExportTraceServiceResponse] = taken
    ) -> None:
        super().__init__()
        receiver = self

        class Servicer(service_grpc.TraceServiceServicer):  # type: ignore[misc]
            def Export(self, request: Any, context: grpc.ServicerContext) -> service.ExportTraceServiceResponse:
                answered = answer(receiver._next(), context)
                receiver._keep(request.SerializeToString())
                return answered

        self._server = grpc.server(ThreadPoolExecutor(2))
        service_grpc.add_TraceServiceServicer_to_server(Servicer(), self._server)
        self.endpoint = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        assert not self._errors, self._errors
