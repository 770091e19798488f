"""Stand-in workers: one process that listens like very many tritonservers, and holds each call for a while.

`python -m benchmarks.dataplane.standin FOLDER COUNT HOLD_MS FLOATS` listens on `FOLDER/w0.sock` and so on, prints
`ready`, and ends when its standard input ends.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


class Worker(asyncio.Protocol):
    """One connection from the gateway.

    Args:
        hold_s: Seconds for which a call is held.
        answer: Bytes of the answer to every call.
    """

    def __init__(self, hold_s: float, answer: bytes) -> None:
        self._hold_s = hold_s
        self._answer = answer
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Implements `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Implements `asyncio.Protocol`."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        # The first Content-Length is that of the JSON, the last that of the body.
        size = int(_LENGTH.findall(bytes(self._received[:end]))[-1])
        if len(self._received) >= end + 4 + size:
            del self._received[: end + 4 + size]
            asyncio.get_running_loop().call_later(self._hold_s, self._reply)

    def _reply(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._answer)


def answer(floats: int) -> bytes:
    """Returns the bytes of an answer with one item in the output Y."""
    size = 4 * floats
    output = {"name": "Y", "datatype": "FP32", "shape": [1, floats], "parameters": {"binary_data_size": size}}
    text = json.dumps({"outputs": [output]}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + size}\r\n\r\n"
    )
    return head.encode() + text + bytes(size)


async def serve(folder: Path, count: int, hold_s: float, floats: int) -> None:
    """Serves until the standard input ends."""
    loop = asyncio.get_running_loop()
    reply = answer(floats)
    servers = [
        await loop.create_unix_server(lambda: Worker(hold_s, reply), folder / f"w{number}.sock")
        for number in range(count)
    ]
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000, int(sys.argv[4])))
