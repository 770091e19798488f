"""Loads of models over gRPC."""

import asyncio
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.client import TritonClient


class Loads(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A server that claims to have loaded any model."""

    async def RepositoryModelLoad(self, request: object, context: object) -> object:
        """Answers a load."""
        return service_pb2.RepositoryModelLoadResponse()


def test_a_load_reaches_a_server_that_has_just_started_after_one_that_could_not(run_dir: Path) -> None:
    async def main() -> None:
        address = f"unix:{run_dir}/server.grpc"
        client = TritonClient("http://unused", grpc_address=address)
        # The error keeps the connection that has failed.
        with pytest.raises(ServerError, match="does not answer") as failed:
            await client.load("m")
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Loads(), server)
        server.add_insecure_port(address)
        await server.start()
        try:
            await client.load("m")
        finally:
            await server.stop(None)
            await client.close(for_good=True)
        del failed

    asyncio.run(main())
