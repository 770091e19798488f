"""Stand-in workers: one process that listens like very many tritonservers, and holds each call for a while.

`python -m benchmarks.dataplane.standin FOLDER COUNT HOLD_MS FLOATS` listens on `FOLDER/w0.sock` and so on, and prints
`ready`. It answers each line on its standard input with what it has done so far (`Count`), and ends with the input.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Count:
    """Counts of the calls that the workers have answered and held so far.

    Attributes:
        at_s: Time of the count, on the monotonic clock.
        held_s: Seconds that calls were held, summed over all calls, also those held now.
        calls: Number of calls that were answered.
    """

    at_s: float
    held_s: float
    calls: int


class Counter:
    """Counts the calls of all workers."""

    def __init__(self) -> None:
        self._held = 0
        self._count = Count(time.monotonic(), 0.0, 0)

    def count(self) -> Count:
        """Returns the count until now."""
        now_s = time.monotonic()
        held_s = self._count.held_s + self._held * (now_s - self._count.at_s)
        self._count = Count(now_s, held_s, self._count.calls)
        return self._count

    def begin(self) -> None:
        """Counts a call that is held from now on."""
        self.count()
        self._held += 1

    def end(self) -> None:
        """Counts a call that is answered now."""
        count = self.count()
        self._held -= 1
        self._count = Count(count.at_s, count.held_s, count.calls + 1)


class Slot:
    """The slot of a worker, which holds one call after the other.

    Args:
        hold_s: Seconds for which a call is held.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._free_at_s = 0.0

    def take(self, now_s: float) -> tuple[float, float]:
        """Returns when a call that arrives now is held from, and until."""
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + self._hold_s
        return begin_s, self._free_at_s


class Worker(asyncio.Protocol):
    """One connection from the gateway.

    Args:
        slot: Slot of the worker, which its connections share.
        answer: Bytes of the answer to every call.
        counter: Counter of all calls.
    """

    def __init__(self, slot: Slot, answer: bytes, counter: Counter) -> None:
        self._slot = slot
        self._answer = answer
        self._counter = counter
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
            loop = asyncio.get_running_loop()
            begin_s, end_s = self._slot.take(loop.time())
            if begin_s > loop.time():
                loop.call_at(begin_s, self._counter.begin)
            else:
                self._counter.begin()
            loop.call_at(end_s, self._reply)

    def _reply(self) -> None:
        self._counter.end()
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
    reply, counter = answer(floats), Counter()
    slots = [Slot(hold_s) for _ in range(count)]
    servers = [
        await loop.create_unix_server(partial(Worker, slot, reply, counter), folder / f"w{number}.sock")
        for number, slot in enumerate(slots)
    ]
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(asdict(counter.count())), flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000, int(sys.argv[4])))
