import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.runtime.dtypes import BF16, Array
from tests.native.core import to_bytes
from tests.native.worker import Answer, Call, Handler, HangUp, Refuse, Worker, message

Serve = Callable[[Handler], Connection]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(handler: Handler) -> Connection:
            worker = stack.enter_context(Worker(tmp_path, "w", handler))
            return stack.enter_context(closing(Connection(f"unix:{worker.path}", 5.0)))

        yield start


def answer(outputs: dict[str, Array]) -> bytes:
    return Call("m", {}, (), frozenset(), (), 0, 0).answer(outputs)


def exchange(connection: Connection, **inputs: Array) -> dict[str, Array]:
    connection.send("m", inputs, tuple(inputs))
    return connection.receive()


def arrays() -> st.SearchStrategy[Array]:
    kinds = [np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64]
    shapes = npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    numbers = st.sampled_from(kinds).flatmap(lambda kind: npst.arrays(kind, shapes))
    strings = npst.arrays(np.object_, shapes, elements=st.binary(max_size=9))
    bf16 = npst.arrays(np.uint16, shapes).map(lambda bits: bits.view(BF16))
    return numbers | strings | bf16


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), arrays(), min_size=1))
def test_tensors_survive_a_round_trip(tmp_path: Path, tensors: dict[str, Array]) -> None:
    with Worker(tmp_path, "w", lambda call: call.inputs) as worker:
        connection = Connection(f"unix:{worker.path}", 5.0)
        for _ in range(2):
            back = exchange(connection, **tensors)
            assert back.keys() == tensors.keys()
            for name, array in tensors.items():
                assert back[name].dtype == array.dtype
                assert back[name].shape == array.shape
                assert back[name].flags.aligned
                assert to_bytes(back[name]) == to_bytes(array)
        assert worker.connections == 1
        connection.close()


@pytest.mark.parametrize("dtype", [np.dtype("?"), np.dtype("f2"), BF16])
def test_large_tensors_of_any_type_survive_a_round_trip(serve: Serve, dtype: np.dtype[Any]) -> None:
    array = np.random.default_rng(1).integers(0, 2, 300_000 * dtype.itemsize, np.uint8).view(dtype).reshape(3, -1)
    assert to_bytes(exchange(serve(lambda call: call.inputs), X=array)["X"]) == to_bytes(array)


def test_a_large_tensor_that_is_not_contiguous_is_sent_correctly(serve: Serve) -> None:
    array = np.arange(600_000, dtype=np.float32).reshape(2, 300, 1000)[:, :, ::2]
    connection = serve(lambda call: {"Y": 2 * call.inputs["X"]})
    assert np.array_equal(exchange(connection, X=array)["Y"], 2 * array)


def test_the_request_names_the_model_and_the_outputs(serve: Serve) -> None:
    seen = []

    def handler(call: Call) -> Answer:
        seen.append(call)
        return {"Y": np.zeros(1)}

    connection = serve(handler)
    connection.send("g.a.v.g7", {"X": np.zeros((1, 2))}, ("Y", "Z"))
    connection.receive()
    assert seen[0].model == "g.a.v.g7"
    assert seen[0].outputs == ("Y", "Z")


@pytest.mark.parametrize("cut", [1, 10, 40, 120, 150, -1])
def test_an_answer_that_arrives_in_pieces_is_assembled(tmp_path: Path, cut: int) -> None:
    whole = answer({"Y": np.arange(6.0)})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "w.sock"))
        listener.listen()
        connection = Connection(f"unix:{tmp_path}/w.sock", 5.0)
        server, _ = listener.accept()
        connection.send("m", {"X": np.zeros(1)}, ("Y",))
        server.sendall(whole[:cut])
        server.sendall(whole[cut:])
        assert connection.receive()["Y"].tolist() == [0, 1, 2, 3, 4, 5]
        server.close()
        connection.close()


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_answer_raises_its_message(serve: Serve, status: int) -> None:
    def handler(call: Call) -> Answer:
        raise Refuse(status, "[request id: <id_unknown>] no such shape")

    connection = serve(handler)
    for _ in range(2):
        with pytest.raises(CallError, match=r"^no such shape$"):
            exchange(connection, X=np.zeros(1))


@pytest.mark.parametrize(
    "malformed",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nInference-Header-Content-Length: 9\r\n\r\n{}",
        b"HTTP/1.1\r\n\r\n",
        b"x" * 70_000,
        message(200, b"{}"),
        message(200, b"[]"),
        message(200, b"not json"),
        message(200, b'{"outputs":[{"name":"Y","datatype":"FP8","shape":[1],"data":[1]}]}'),
        message(200, b'{"outputs":[{"name":"Y","datatype":"FP32","shape":[3],"data":[1]}]}'),
        message(200, b'{"outputs":[{"name":"Y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'),
        message(200, b'{"outputs":[]}1234', header_bytes=14),
        answer({"Y": np.zeros(2)}) + b"more",
    ],
)
def test_a_malformed_answer_raises_an_error(serve: Serve, malformed: bytes) -> None:
    with pytest.raises(CallError, match="violates Triton's protocol"):
        exchange(serve(lambda call: malformed), X=np.zeros(1))


def test_a_closed_connection_raises_an_error(serve: Serve) -> None:
    def handler(call: Call) -> Answer:
        raise HangUp

    with pytest.raises(CallError, match="connection closed"):
        exchange(serve(handler), X=np.zeros(1))


def test_a_late_answer_raises_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "w.sock"))
        listener.listen()
        connection = Connection(f"unix:{tmp_path}/w.sock", 0.02)
        with pytest.raises(CallError, match="no answer in time"):
            exchange(connection, X=np.zeros(1))
        connection.close()


def test_a_server_that_stops_reading_raises_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "w.sock"))
        listener.listen()
        connection = Connection(f"unix:{tmp_path}/w.sock", 0.02)
        with pytest.raises(CallError, match="no answer in time"):
            connection.send("m", {"X": np.zeros(10_000_000)}, ())
        connection.close()


@pytest.mark.parametrize("address", ["unix:{}/none.sock", "127.0.0.1:1", "unix:" + "x" * 200, "nowhere"])
def test_an_unreachable_address_raises_an_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(CallError, match="cannot connect"):
        Connection(address.format(tmp_path), 1.0)


def test_tcp_addresses_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(f"127.0.0.1:{listener.getsockname()[1]}", 5.0)
        server, _ = listener.accept()
        connection.send("m", {"X": np.zeros(1)}, ("Y",))
        server.sendall(answer({"Y": np.ones(1)}))
        assert connection.receive()["Y"].tolist() == [1.0]
        server.close()
        connection.close()
