"""The process that exports traces."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.gpus.gateway import Otlp
from jigsaw_triton.runtime.trace import EXPORT_FILE, FOLDER, GATEWAY, REQUESTS, WORKERS, Hop, Response, Run, TraceFile
from tests.console.otlp.records import BEGAN_S, CONTEXT, call, hop, response, run
from tests.e2e.system import free_ports
from tests.fakes.otlp import GrpcReceiver, Receiver
from tests.waiting import WAIT_LIMIT_S, eventually


@contextmanager
def exporter(run_dir: Path, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the process, which has begun to read when this returns."""
    command = (sys.executable, "-m", "jigsaw_triton.console.otlp.process", str(run_dir), Otlp(endpoint).url)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        eventually(lambda: (run_dir / EXPORT_FILE).exists() and status(run_dir) is not None)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_LIMIT_S)


def status(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / EXPORT_FILE).read_text())
    return found


def write(run_dir: Path, record: Hop | Response | Run) -> None:
    match record:
        case Hop():
            place = Path(GATEWAY) / f"{record.route}.jsonl"
        case Response():
            place = Path(GATEWAY) / REQUESTS / f"{record.graph}.jsonl"
        case Run():
            place = Path(WORKERS) / record.worker / f"{record.model}_0.jsonl"
    TraceFile(run_dir / FOLDER / place).write(record)


NAMES = ["infer g", "detect", "queue detect", "call detect", "serve detect", "execute detect"]


@pytest.mark.slow
def test_records_of_all_servers_become_a_trace(tmp_path: Path) -> None:
    write(tmp_path, response(took_ms=1.0))
    with Receiver() as receiver, exporter(tmp_path, receiver.endpoint):
        spoiled = json.dumps({**asdict(response()), "trace": {**asdict(CONTEXT), "id": []}})
        with (tmp_path / FOLDER / GATEWAY / REQUESTS / "g.jsonl").open("a") as file:
            file.write(f'{{"trace": 7}}\nnot JSON\n[]\n{spoiled}\n')
        for record in (run(7), hop(call(7)), response()):
            write(tmp_path, record)
        spans = receiver.wait(lambda spans: len(spans) == 6, "one request")
        eventually(lambda: status(tmp_path)["exported"] == 6)
    assert [span.name for span in spans if span.resource["service.name"] == "jigsaw-gateway"] == NAMES[:4]
    assert [span.name for span in spans if span.resource["service.instance.id"] == "w"] == NAMES[4:]
    assert {span.trace for span in spans} == {CONTEXT.id}
    assert spans[0].start_ns == 1e9 * BEGAN_S


@pytest.mark.slow
@pytest.mark.parametrize(("end", "kind"), [("stdin", GrpcReceiver), ("SIGTERM", Receiver)])
def test_the_last_spans_are_sent_at_the_end(
    tmp_path: Path, end: str, kind: type[GrpcReceiver] | type[Receiver]
) -> None:
    with kind() as receiver, exporter(tmp_path, receiver.endpoint) as process:
        write(tmp_path, hop(call(7)))
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        assert process.wait(WAIT_LIMIT_S) == 0
        assert [span.name for span in receiver.spans] == NAMES[:4]
    assert status(tmp_path)["exported"] == 4


@pytest.mark.slow
def test_a_receiver_that_comes_back_gets_what_was_sent_meanwhile(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with exporter(tmp_path, f"http://127.0.0.1:{port}"):
        write(tmp_path, response())
        eventually(lambda: "cannot be reached" in status(tmp_path)["error"])
        with Receiver(port=port) as receiver:
            receiver.wait(lambda spans: len(spans) == 1, "after the restart of the receiver")
            eventually(lambda: status(tmp_path)["error"] == "")
    assert (status(tmp_path)["exported"], status(tmp_path)["dropped"]) == (1, {})


@pytest.mark.slow
def test_a_second_process_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    with Receiver() as receiver, exporter(tmp_path, receiver.endpoint) as first:
        command = [*first.args]  # type: ignore[misc]
        second = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            write(tmp_path, response())
            receiver.wait(lambda spans: len(spans) == 1, "the first process")
            # The process writes its counters only when they have changed.
            eventually(lambda: status(tmp_path)["exported"] == 1)
            (tmp_path / EXPORT_FILE).unlink()
            os.kill(first.pid, signal.SIGKILL)
            eventually((tmp_path / EXPORT_FILE).exists)
            write(tmp_path, response())
            receiver.wait(lambda spans: len(spans) == 2, "the second process")
        finally:
            second.kill()
            second.communicate(timeout=WAIT_LIMIT_S)
