"""The gRPC port of a stand-in of a gateway, and requests to it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.waiting import WAIT_LIMIT_S


class GrpcGateway(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers each inference with its own name, and the name of the model as the version.

    Args:
        name: Name of the cell.
        address: Address to listen on: HOST:PORT, or `unix:` and a path.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address
        self._server: Any = None

    def start(self) -> None:
        """Begins to listen."""
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(self._address)
        self._server.start()

    def stop(self) -> None:
        """Closes the port and all connections."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def ModelInfer(self, request: Any, _: Any) -> Any:
        return service_pb2.ModelInferResponse(model_name=self.name, model_version=request.model_name)

    def ModelStatistics(self, request: Any, _: Any) -> Any:
        found = service_pb2.ModelStatistics(name=self.name, version=request.name)
        return service_pb2.ModelStatisticsResponse(model_stats=[found])


def tensors(count: int) -> list[Any]:
    """Returns the inputs of a request with a tensor of this many integers."""
    tensor = tritonclient.grpc.InferInput("X", [1, count], "INT64")
    tensor.set_data_from_numpy(np.zeros((1, count), np.int64))
    return [tensor]


def ask_grpc(port: int, count: int = 1, *, model: str = "traffic", call: str = "infer") -> Counter[str]:
    """Sends gRPC requests one after the other on one connection. Returns the number of each answer."""
    answers: Counter[str] = Counter()
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for _ in range(count):
            if call == "infer":
                answer = client.infer(model, tensors(4), client_timeout=WAIT_LIMIT_S).get_response()
                assert answer.model_version == model
                answers[answer.model_name] += 1
            else:
                answers[client.get_inference_statistics(model, client_timeout=WAIT_LIMIT_S).model_stats[0].name] += 1
    return answers
