"""The process that exports traces is kept running."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import trace_export
from jigsaw_triton.controller.fleet.trace_export import TraceExport
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import Otlp
from jigsaw_triton.runtime.trace import EXPORT_FILE, SHARE_FILE
from jigsaw_triton.servers.os_process import start_time
from tests.fakes.otlp import Receiver
from tests.waiting import until


async def ready(traces: TraceExport) -> int:
    """Waits until the process runs, and returns its id."""
    await until(lambda: traces.pid is not None)
    assert traces.pid is not None
    return traces.pid


@pytest.mark.slow
def test_the_process_runs_while_traces_are_exported(run_dir: Path) -> None:
    async def check(endpoint: str) -> None:
        traces = TraceExport(Paths(run_dir, run_dir), pytest.fail)
        assert traces.status() is None
        await traces.configure(None)
        await traces.configure(Otlp(endpoint, 0.25))
        pid = await ready(traces)
        assert (run_dir / SHARE_FILE).read_text() == "0.25\n"
        await traces.configure(Otlp(endpoint, 1.0))
        assert (run_dir / SHARE_FILE).read_text() == "1.0\n"
        assert traces.pid == pid
        status = traces.status()
        assert status is not None
        assert (status["endpoint"], status["sample"], status["state"]) == (endpoint, 1.0, "ready")
        assert status["dropped"] == {"full": 0, "unreachable": 0, "refused": 0}
        await until((run_dir / EXPORT_FILE).exists)
        await traces.configure(Otlp(f"{endpoint}/v1/traces/", 1.0))
        assert traces.pid == pid
        await traces.configure(Otlp(f"{endpoint}/other", 1.0))
        assert await ready(traces) != pid
        pid = await ready(traces)
        await traces.configure(None)
        assert (start_time(pid), traces.status()) == (None, None)
        assert not (run_dir / SHARE_FILE).exists()
        assert not (run_dir / EXPORT_FILE).exists()
        await traces.stop()

    with Receiver() as receiver:
        asyncio.run(check(receiver.endpoint))


def test_a_process_that_dies_is_started_again(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "_FIRST_DELAY_S", 0.01)
    reports: list[str] = []

    async def check() -> None:
        traces = TraceExport(Paths(run_dir, run_dir), reports.append)
        await traces.configure(Otlp("http://127.0.0.1:9"))
        try:
            pid = await ready(traces)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: traces.pid not in (None, pid))
        finally:
            await traces.stop()

    asyncio.run(check())
    assert reports == ["the process that exports traces ended with status -9; it is started again in 0.01 s"]


def test_a_process_that_cannot_be_started_is_reported(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    reports: list[str] = []

    async def check() -> None:
        traces = TraceExport(Paths(run_dir, run_dir), reports.append)
        await traces.configure(Otlp("http://127.0.0.1:9"))
        await until(lambda: reports)
        status = traces.status()
        assert status is not None
        assert status["state"] == "restarting"
        await traces.stop()

    asyncio.run(check())
    assert "No such file" in reports[0]


def test_a_share_that_cannot_be_written_is_reported(run_dir: Path) -> None:
    reports: list[str] = []
    (run_dir / f"{SHARE_FILE}.new").mkdir()

    async def check() -> None:
        traces = TraceExport(Paths(run_dir, run_dir), reports.append)
        await traces.configure(Otlp("http://127.0.0.1:9"))
        await ready(traces)
        await traces.stop()

    asyncio.run(check())
    assert reports == [
        f"the share of requests to sample cannot be written to {run_dir / SHARE_FILE} (Is a directory)",
    ]
