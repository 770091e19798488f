"""The process that exports traces: `python -m jigsaw_triton.console.otlp.process RUN_DIR URL`.

It reads what the gateway and the workers write about sampled requests, and ends at the end of its stdin, and so with
the controller that started it. Besides this package it imports only the standard library, and gRPC where the address
asks for it, so that it takes little memory.
"""

import fcntl
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jigsaw_triton
from jigsaw_triton.console.otlp.assembly import Assembly
from jigsaw_triton.console.otlp.encoding import Encoded, encoded, request
from jigsaw_triton.console.otlp.sender import Sender, post
from jigsaw_triton.console.otlp.spans import GATEWAY as GATEWAY_SERVER
from jigsaw_triton.console.otlp.spans import Attribute, spans
from jigsaw_triton.runtime.trace import (
    EXPORT_FILE,
    FOLDER,
    GATEWAY,
    REQUESTS,
    WORKERS,
    Hop,
    Response,
    Run,
    hop_from_json,
    response_from_json,
    run_from_json,
)
from jigsaw_triton.servers.line_tail import Tail

READ_S = 0.5
"""Seconds between two readings of the files. Two files of 256 KiB hold what is written meanwhile."""

CLOSE_S = 5.0
"""Seconds that the last spans may take at the end."""

_SCOPE = ("jigsaw-triton", jigsaw_triton.__version__)


def resource(server: str, host: str) -> dict[str, Attribute]:
    """Returns the attributes of a server of a deployment."""
    return {
        "service.namespace": "jigsaw-triton",
        "service.name": "jigsaw-gateway" if server == GATEWAY_SERVER else "jigsaw-worker",
        "service.instance.id": server,
        "service.version": jigsaw_triton.__version__,
        "host.name": host,
    }


class Exporter:
    """Carries records from the trace files to a sender.

    Args:
        run_dir: Run directory of the deployment.
        sender: Sender of the spans.
    """

    def __init__(self, run_dir: Path, sender: Sender) -> None:
        gateway, workers = run_dir / FOLDER / GATEWAY, run_dir / FOLDER / WORKERS
        self._status = run_dir / EXPORT_FILE
        self._sender = sender
        self._assembly = Assembly()
        self._written: dict[str, Any] = {}
        # Executions are read first, so that those of a response are there when it is read.
        self._sources: list[tuple[Tail, Callable[[str], Hop | Response | Run]]] = [
            (Tail(workers, "*/*.jsonl"), run_from_json),
            (Tail(gateway, "*.jsonl"), hop_from_json),
            (Tail(gateway / REQUESTS, "*.jsonl"), response_from_json),
        ]

    def step(self, now_s: float, *, last: bool = False) -> None:
        """Reads what is new, and queues the spans of the requests that are complete.

        Args:
            now_s: Time of a monotonic clock.
            last: True to queue the spans of all requests.
        """
        for tail, parse in self._sources:
            for line in tail.read():
                # The stubs that run models write the records too, and a model's code could spoil them.
                with suppress(ValueError, TypeError):
                    self._assembly.add(parse(line), now_s)
        for sampled in self._assembly.complete(float("inf") if last else now_s):
            with suppress(ValueError, TypeError, AttributeError, OverflowError):
                self._sender.offer([encoded(span) for span in spans(sampled, lambda: secrets.token_bytes(8))])
        self.write_status()

    def write_status(self) -> None:
        """Writes the counters to their file, if they have changed."""
        gaps = sum(tail.gaps for tail, _ in self._sources)
        status = {**asdict(self._sender.counts()), "lost_requests": self._assembly.dropped, "lost_files": gaps}
        if status == self._written:
            return
        fresh = self._status.with_name(f"{self._status.name}.new")
        with suppress(OSError):
            fresh.write_text(json.dumps(status))
            fresh.replace(self._status)
            self._written = status


def _posting(url: str) -> Callable[[bytes], int]:
    """Returns the function that sends a message to an address."""
    if url.startswith("grpc"):
        # gRPC takes 20 MB of memory, which exporters over HTTP do not need.
        from jigsaw_triton.console.otlp.grpc_post import GrpcPost

        return GrpcPost(url)
    return partial(post, url)


def main(run_dir: Path, url: str) -> None:
    """Exports traces until the end of stdin or SIGTERM.

    Args:
        run_dir: Run directory of the deployment.
        url: Address to send them to.
    """
    os.umask(0o077)
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: ended.append(received))
    host = socket.gethostname()

    def encode(batch: Sequence[Encoded]) -> bytes:
        resources: Mapping[str, Mapping[str, Attribute]] = {
            server: resource(server, host) for server in {span.server for span in batch}
        }
        return request(batch, resources, _SCOPE)

    # The process of an earlier controller may still send its last spans.
    lock = os.open(run_dir / f"{EXPORT_FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sender = Sender(encode, _posting(url))
    exporter = Exporter(run_dir, sender)
    waiting = select.poll()
    waiting.register(sys.stdin.fileno(), select.POLLIN)
    while not ended and not waiting.poll(1000 * READ_S):
        exporter.step(time.monotonic())
    exporter.step(time.monotonic(), last=True)
    sender.close(CLOSE_S)
    exporter.write_status()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
