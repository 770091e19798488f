"""Asyncio client of a tritonserver: health, repository, statistics, metrics, inference."""

import asyncio
import io
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import numpy as np
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor, serialize_byte_tensor

from jigsaw_triton.errors import RefusedError, ServerError
from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy, to_triton
from jigsaw_triton.runtime.spec import LISTENER, SECRET_HEADER
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.metrics import Sample, parse_metrics

_GRPC_PREFIX = "triton-grpc-protocol-"
"""Prefix that Triton adds to the name of a restricted protocol's header over gRPC."""

_CHANNEL_ARGS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
"""Arguments of gRPC channels. Channels with one address otherwise share a connection and its backoff, also with a
server that died there before."""

_LARGE_BYTES = 2**20

_TRACEBACK = "\n\nAt:\n"
_HEADER_LENGTH = "Inference-Header-Content-Length"
_RESTRICTED = "v2/repository/"


class TritonClient:
    """Client of one tritonserver.

    Close it before the server is stopped, because idle connections delay Triton's exit.

    Args:
        address: `http://host:port`, or the path of a Unix socket.
        secret: Secret for calls about the repository; empty if the server restricts nothing.
        metrics_address: Address of /metrics in the same form as `address`; empty if it is not served.
        grpc_address: gRPC target through which models are loaded; empty to load them over HTTP.
        timeout_s: Timeout in seconds of all calls except `load`, `unload` and `infer`, which have their own.
    """

    def __init__(
        self,
        address: str,
        *,
        secret: str = "",
        metrics_address: str = "",
        grpc_address: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._address = address
        self._secret = secret
        self._metrics_address = metrics_address
        self._grpc_address = grpc_address
        self._timeout_s = timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._ended = False

    @classmethod
    def of(cls, command: Command, *, timeout_s: float = 10.0) -> Self:
        """Creates a client of the server that the command starts."""
        return cls(
            command.address,
            secret=command.secret,
            metrics_address=command.metrics_address,
            grpc_address=command.grpc_address,
            timeout_s=timeout_s,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, for_good: bool = False) -> None:
        """Closes all connections, even if it is cancelled.

        Args:
            for_good: True if later calls must fail as if nothing listened; otherwise they open new connections.
        """
        self._ended = self._ended or for_good
        sessions, self._sessions = list(self._sessions.values()), {}
        cancelled: asyncio.CancelledError | None = None
        for session in sessions:
            try:
                await session.close()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def ready(self) -> bool:
        """Returns True if the server is ready; False also if nothing answers."""
        try:
            status, _, _ = await self._exchange("GET", "v2/health/ready")
        except ServerError:
            return False
        return status == 200

    async def index(self) -> dict[str, str]:
        """Returns the state of each model in the repository: READY, LOADING, UNLOADING or UNAVAILABLE.

        A model that was never loaded is UNAVAILABLE. The listener of a worker, which is always loaded, is left out.
        """
        entries = json.loads(await self._call("POST", "v2/repository/index", data=b"{}"))
        return {entry["name"]: entry.get("state", "UNAVAILABLE") for entry in entries if entry["name"] != LISTENER}

    async def load(self, model: str, *, timeout_s: float = 600.0) -> None:
        """Loads or reloads a model; returns when it is ready.

        Over HTTP, Triton 24.10 loads the model in the thread that serves the connection, which delays inferences on all
        other connections of that thread. Over gRPC it does not.

        Raises:
            ServerError: The model could not be loaded; the message is Triton's.
        """
        if self._grpc_address:
            await self._load_over_grpc(model, timeout_s)
            return
        await self._call("POST", f"v2/repository/models/{quote(model)}/load", data=b"{}", timeout_s=timeout_s)

    async def unload(self, model: str, *, timeout_s: float = 60.0) -> None:
        """Starts to unload a model: requests in flight complete, new ones are refused. Poll `index` for completion."""
        await self._call("POST", f"v2/repository/models/{quote(model)}/unload", data=b"{}", timeout_s=timeout_s)

    async def config(self, model: str) -> dict[str, Any]:
        """Returns the configuration of a loaded model."""
        return _object(json.loads(await self._call("GET", f"v2/models/{quote(model)}/config")))

    async def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Returns the statistics of a loaded model, or of all loaded models."""
        path = f"v2/models/{quote(model)}/stats" if model else "v2/models/stats"
        stats: list[dict[str, Any]] = json.loads(await self._call("GET", path))["model_stats"]
        return stats

    async def metrics(self, names: tuple[str, ...] = ("",)) -> tuple[Sample, ...]:
        """Returns the samples at /metrics.

        Args:
            names: Prefixes of the names of the samples to return; by default all.
        """
        text = await self._call("GET", "metrics", address=self._metrics_address)
        return parse_metrics(text.decode(), names)

    async def infer(
        self, model: str, inputs: Arrays, *, timeout_s: float = 30.0, deadline_s: float | None = None
    ) -> dict[str, Array]:
        """Runs a model.

        Args:
            model: Name of the model.
            inputs: Inputs by name, with a leading batch dimension if the model has one; BYTES are object arrays of
                bytes.
            timeout_s: Seconds to wait for the answer.
            deadline_s: Timeout of the request, which replaces the SLO of a front; None for `timeout_s`.

        Returns:
            All outputs by name.

        Raises:
            RefusedError: The server had no capacity for the request in time.
            ServerError: The request failed; the message is Triton's.
        """
        head, body = _encode(inputs, deadline_s or timeout_s)
        status, headers, content = await self._exchange(
            "POST",
            f"v2/models/{quote(model)}/infer",
            data=head + body,
            headers={_HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"},
            timeout_s=timeout_s,
        )
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise RefusedError(_message(content, status), where=model)
        if status != HTTPStatus.OK:
            raise ServerError(_message(content, status), where=model)
        try:
            return _decode(content, int(headers.get(_HEADER_LENGTH, len(content))))
        except (ValueError, KeyError, TypeError, InferenceServerException) as error:
            raise ServerError(f"the answer does not follow Triton's protocol: {error}", where=model) from error

    async def _load_over_grpc(self, model: str, timeout_s: float) -> None:
        # This import is slow, and most commands load nothing.
        from tritonclient.grpc.aio import InferenceServerClient

        headers = {f"{_GRPC_PREFIX}{SECRET_HEADER}": self._secret} if self._secret else None
        client = InferenceServerClient(self._grpc_address, channel_args=_CHANNEL_ARGS)
        try:
            await client.load_model(model, headers=headers, client_timeout=timeout_s)
        except InferenceServerException as error:
            message = _without_traceback(str(error.message()))
            match error.status():
                case "StatusCode.UNAVAILABLE":
                    message = f"does not answer: {message}"
                case "StatusCode.DEADLINE_EXCEEDED":
                    message = f"no answer within {timeout_s:g} s"
            raise ServerError(message, where=self._grpc_address) from error
        finally:
            await asyncio.shield(client.close())

    async def _call(
        self, method: str, path: str, *, data: bytes | None = None, address: str = "", timeout_s: float | None = None
    ) -> bytes:
        status, _, content = await self._exchange(method, path, data=data, address=address, timeout_s=timeout_s)
        if status != 200:
            raise ServerError(_message(content, status), where=address or self._address)
        return content

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        address: str = "",
        timeout_s: float | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        address = address or self._address
        base = address if address.startswith("http://") else "http://localhost"
        restricted = {SECRET_HEADER: self._secret} if self._secret and path.startswith(_RESTRICTED) else {}
        timeout_s = timeout_s or self._timeout_s
        try:
            async with self._session(address).request(
                method,
                f"{base}/{path}",
                # A large body is written in pieces, so that it does not block the event loop.
                data=io.BytesIO(data) if data is not None and len(data) >= _LARGE_BYTES else data,
                headers={**restricted, **(headers or {})},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            raise ServerError(f"no answer to {path} within {timeout_s:g} s", where=address) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(f"does not answer: {str(error) or type(error).__name__}", where=address) from error

    def _session(self, address: str) -> aiohttp.ClientSession:
        if self._ended:
            raise ServerError("does not answer: it was stopped", where=address)
        # Created on first use, because a session belongs to the running event loop.
        if address not in self._sessions:
            unix = not address.startswith("http://")
            connector = aiohttp.UnixConnector(address) if unix else aiohttp.TCPConnector()
            self._sessions[address] = aiohttp.ClientSession(connector=connector)
        return self._sessions[address]


def _object(value: Any) -> dict[str, Any]:
    result: dict[str, Any] = value
    return result


def _message(content: bytes, status: int) -> str:
    """Returns the error message in Triton's answer."""
    try:
        return _without_traceback(str(json.loads(content)["error"]))
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"


def _without_traceback(message: str) -> str:
    """Removes the traceback that the Python backend adds; the server's log has it too."""
    return message.partition(_TRACEBACK)[0].strip().rstrip(";")


def _encode(inputs: Arrays, timeout_s: float) -> tuple[bytes, bytes]:
    """Returns the JSON and the binary tensors of a request with a timeout and with binary outputs."""
    items, pieces = [], []
    for name, array in inputs.items():
        dtype = to_triton(array.dtype)
        raw = _serialize(array) if dtype == "BYTES" else np.ascontiguousarray(array).tobytes()
        items.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": dtype,
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        pieces.append(raw)
    parameters = {"binary_data_output": True, "timeout": round(1e6 * timeout_s)}
    head = json.dumps({"inputs": items, "parameters": parameters}).encode()
    return head, b"".join(pieces)


def _serialize(array: Array) -> bytes:
    serialized = serialize_byte_tensor(array)
    return serialized.item() if serialized.size else b""


def _decode(content: bytes, json_bytes: int) -> dict[str, Array]:
    at = json_bytes
    outputs = {}
    for item in json.loads(content[:json_bytes])["outputs"]:
        dtype, shape = to_numpy(item["datatype"]), tuple(item["shape"])
        size = item.get("parameters", {}).get("binary_data_size")
        if size is None:  # Triton writes an empty output into the JSON.
            values = [v.encode() if isinstance(v, str) else v for v in item.get("data", [])]
            array: Array = np.array(values, dtype)
        else:
            raw, at = content[at : at + size], at + size
            array = deserialize_bytes_tensor(raw) if dtype.kind == "O" else np.frombuffer(raw, dtype)
        outputs[item["name"]] = array.reshape(shape)
    return outputs
