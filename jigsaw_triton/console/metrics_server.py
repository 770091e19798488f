"""Metrics of a controller over TCP, where Prometheus can read them. Nothing else is served there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from jigsaw_triton.console.metrics import CONTENT_TYPE
from jigsaw_triton.console.options import Listen

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Seconds between two attempts to listen. A port may belong to the previous controller, which is about to end."""


async def serve_metrics(
    listen: Listen, text: Callable[[], Awaitable[str]], report: Callable[[str], None], *, retry_s: float = RETRY_S
) -> None:
    """Serves GET /metrics until the task is cancelled. A port that is in use is reported once, and tried again.

    A controller without metrics is better than none, so nothing here ends it.

    Args:
        listen: Address and port.
        text: Function that returns the metrics.
        report: Function that receives a sentence if the port is in use.
        retry_s: Seconds between two attempts to listen.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=(await text()).encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        reported = False
        while True:
            try:
                await web.TCPSite(runner, listen.address, listen.port).start()
                break
            except OSError as error:
                if not reported:
                    report(f"the controller's metrics cannot be served on {listen}: {error.strerror or error}")
                reported = True
            await asyncio.sleep(retry_s)
        log.info("the controller's metrics are served on http://%s/metrics", listen)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
