"""A hand-written router: takes floats over HTTP, calls two models one after the other, and returns floats.

`python -m benchmarks.dataplane.router_app GRPC_PORT FIRST SECOND` prints `port N`, and ends when its standard input
ends.
"""

import asyncio
import sys

import numpy as np
import tritonclient.grpc.aio as grpc
from aiohttp import web


async def main(grpc_port: str, models: list[str]) -> None:
    """Serves until the standard input ends."""
    triton = grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")

    async def handle(request: web.Request) -> web.Response:
        x = np.frombuffer(await request.read(), np.float32)[None]
        for model in models:
            tensor = grpc.InferInput("X", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            result = await triton.infer(model, [tensor], outputs=[grpc.InferRequestedOutput("Y")])
            x = result.as_numpy("Y")
        return web.Response(body=x.tobytes())

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("port", runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()
    await triton.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
