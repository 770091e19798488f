"""Sends spans to an OTLP endpoint over gRPC. Only the process that does so imports gRPC, which takes 20 MB."""

import grpc

from jigsaw_triton.console.otlp.encoding import rejected
from jigsaw_triton.console.otlp.sender import TIMEOUT_S, RefusedError, RetryLaterError

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_DEFAULT_PORT = 4317

_RETRIED = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Statuses after which OTLP asks clients to try again."""

_DETAILS, _RETRY_INFO = "grpc-status-details-bin", b"google.rpc.RetryInfo"
"""Key of a status's details, and the part of them with which OTLP makes RESOURCE_EXHAUSTED such a status, too."""

_RECONNECT_MS = 15_000
"""Longest delay between two attempts to connect; gRPC's own is two minutes."""


class GrpcPost:
    """Connection to an endpoint.

    Args:
        url: Address, such as `grpc://localhost:4317`, or `grpcs://...` for TLS.
    """

    def __init__(self, url: str) -> None:
        scheme, _, address = url.partition("://")
        has_port = ":" in address.rpartition("]")[2]
        target = address if has_port else f"{address}:{_DEFAULT_PORT}"
        options = [("grpc.max_reconnect_backoff_ms", _RECONNECT_MS)]
        if scheme == "grpcs":
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
        else:
            channel = grpc.insecure_channel(target, options)
        self._url = url
        self._export = channel.unary_unary(METHOD)

    def __call__(self, message: bytes) -> int:
        """Sends a message; returns the number of spans that the endpoint rejected.

        Args:
            message: Encoded `ExportTraceServiceRequest`.

        Raises:
            RetryLaterError: The endpoint cannot be reached, does not answer in time, or asks to try again.
            RefusedError: The endpoint refuses the message.
        """
        try:
            return rejected(self._export(message, timeout=TIMEOUT_S))
        except grpc.RpcError as error:
            text = f"{self._url} answers {error.code().name}: {error.details()}"
            if error.code() in _RETRIED or _asks_to_retry(error):
                raise RetryLaterError(text) from error
            raise RefusedError(text) from error


def _asks_to_retry(error: grpc.RpcError) -> bool:
    details = dict(error.trailing_metadata() or ()).get(_DETAILS, b"")
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _RETRY_INFO in details
