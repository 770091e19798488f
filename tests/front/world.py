"""A front as a user runs it, over stand-ins of the cells' gateways that speak HTTP."""

import http.client
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from jigsaw_triton.api.fronts import FrontFile
from tests.e2e.system import COMMAND
from tests.waiting import WAIT_LIMIT_S, eventually

_POLL_S = 0.05


class Gateway:
    """A stand-in of a cell's gateway. It answers each inference with its name.

    Args:
        name: Name of the cell.
        port: Port for HTTP.
        address: Address to listen on.
    """

    def __init__(self, name: str, port: int, address: str = "127.0.0.1") -> None:
        self.name = name
        self.port = port
        self._address = address
        self.ready = {"traffic"}
        self.capacity_rps: float | None = None
        self.arrivals = 0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Begins to listen."""
        self._server = self._listen()
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), daemon=True).start()

    def _listen(self) -> ThreadingHTTPServer:
        return Server((self._address, self.port), handler(self))

    def stop(self) -> None:
        """Closes the port and all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def answer(self, path: str) -> tuple[int, str]:
        """Returns the status and the text of an answer."""
        if path == "/metrics":
            # Each reading of the metrics finds a hundred more requests.
            self.arrivals += 100
            text = f'jigsaw_arrivals_total{{graph="traffic"}} {self.arrivals}\n'
            if self.capacity_rps is not None:
                text += f'jigsaw_capacity_rps{{graph="traffic"}} {self.capacity_rps}\n'
            return 200, text
        if path == "/v2/health/ready":
            return 200, ""
        model, _, call = path.removeprefix("/v2/models/").partition("/")
        if model not in self.ready:
            return 404, f"{self.name} has no {model}"
        return 200, "" if call == "ready" else self.name


class Server(ThreadingHTTPServer):
    """An HTTP server whose connections end with it."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*args)

    def get_request(self) -> Any:
        """Accepts a connection."""
        request, address = super().get_request()
        self._open.add(request)
        return request, address

    def server_close(self) -> None:
        """Closes the port and all connections, as the end of a process does."""
        super().server_close()
        for request in self._open:
            with suppress(OSError):
                request.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores connections that break."""


def handler(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    """Returns the class that handles the requests to a gateway."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, text = gateway.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            # HAProxy keeps no connection on which a request could meet the end of the gateway.
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class FrontProcess:
    """A front in a process of its own, and its front.yaml.

    Args:
        folder: Folder of the file.
        ports: Free ports for HTTP, gRPC and metrics.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.file = folder / "front.yaml"
        self.http, self.grpc, self.metrics = ports
        self._log = folder / "front.log"
        self._process: subprocess.Popen[bytes] | None = None
        outside = {name: text for name, text in os.environ.items() if not name.startswith("JIGSAW_")}
        cache = {name: text for name, text in os.environ.items() if name == "JIGSAW_CACHE"}
        self._environment = {**outside, **cache}

    def write(self, cells: Iterable[dict[str, Any]], **more: Any) -> None:
        """Writes front.yaml, with more settings."""
        listen = {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}
        spec = {"listen": listen, "cells": list(cells), **more}
        document = {"apiVersion": "jigsaw-triton/v1", "kind": "Front", "spec": spec}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(document))
        fresh.replace(self.file)

    def start(self, *options: str, command: Sequence[str] = COMMAND) -> None:
        """Starts the front with these options, and waits until it listens.

        Args:
            options: Options of `jigsaw-triton front`.
            command: Program and first arguments.
        """
        begun = self.log().count("the front listens")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "front", str(self.file), *options],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.wait(lambda: not self.runs or self.log().count("the front listens") > begun)
        assert self.runs, self.log()

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a command on the same file."""
        return subprocess.run(
            [*COMMAND, "front", str(self.file), *map(str, arguments)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=WAIT_LIMIT_S,
            check=False,
        )

    def end(self, number: int) -> int:
        """Ends the front's process by a signal. Returns its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(WAIT_LIMIT_S)

    @property
    def runs(self) -> bool:
        """True if the front's process runs."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Returns what the front has printed."""
        return self._log.read_text() if self._log.exists() else ""

    def status(self, graph: str = "traffic") -> dict[str, dict[str, Any]]:
        """Returns the state of each server of a graph, as `front --status` has it."""
        return {cell["cell"]: cell for cell in FrontFile(self.file).status()["graphs"][graph]}

    def undisturbed(self, experiment: Callable[[], Counter[str]]) -> Counter[str]:
        """Returns the answers of an experiment during which no health check timed out, as it may on a busy machine."""
        log = self.file.parent / "front.state" / "logs" / "front.log"
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while True:
            before = log.read_text().count("timeout")
            answers = experiment()
            if log.read_text().count("timeout") == before:
                return answers
            assert time.monotonic() < give_up_at, log.read_text()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds."""
        eventually(condition, self.log)

    def ask(self, count: int = 1, *, model: str = "traffic", call: str = "infer") -> Counter[str]:
        """Sends requests one after the other on one connection. Returns the number of each answer."""
        answers: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=WAIT_LIMIT_S)
        try:
            for _ in range(count):
                if call == "infer":
                    connection.request("POST", f"/v2/models/{model}/infer", b"{}")
                else:
                    connection.request("GET", f"/v2/models/{model}/{call}")
                response = connection.getresponse()
                text = response.read().decode()
                answers[text if response.status == 200 else f"{response.status} {text}"] += 1
        finally:
            connection.close()
        return answers


def nearly(answers: Counter[str], **wanted: int) -> bool:
    """True if the cells have answered these numbers of requests, but for a rounding of the weights."""
    return answers.keys() == wanted.keys() and all(abs(answers[name] - count) <= 2 for name, count in wanted.items())
