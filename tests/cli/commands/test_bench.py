import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.commands import bench
from jigsaw_triton.errors import MissingDependencyError
from tests.cli.conftest import Run
from tests.evaluation.test_load import CSV, OUTPUT, REFUSED


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a server that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def perf_analyzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for perf_analyzer. It records its arguments, and prints a recorded output."""
    path = tmp_path / "perf_analyzer"
    (tmp_path / "csv").write_text(CSV)
    (tmp_path / "told").write_text(OUTPUT)
    path.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/args\ncat {tmp_path}/told\nfor last; do :; done\ncp {tmp_path}/csv $last\n'
    )
    path.chmod(0o755)
    monkeypatch.setattr(bench, "find_perf_analyzer", lambda: path)
    return path


def test_results_are_printed_as_a_table(run: Run, app: Path, url: str, perf_analyzer: Path, tmp_path: Path) -> None:
    result = run("bench", app, "--url", url, "--concurrency", 4, "--state", tmp_path / "state")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "hello"
    assert lines[2].split() == ["4", "in", "flight", "2970", "0", "220", "12.7", "24.5", "30.2", "41"]
    assert lines[3] == "SLO: p99 within 100 ms, met"
    arguments = (tmp_path / "args").read_text().strip()
    assert f"{perf_analyzer} {arguments}" in result.stderr
    assert f"-m hello -i http -u {url}" in arguments
    assert f"--input-data {tmp_path}/state/bench/hello.json --concurrency-range 4" in arguments
    assert "the graph has no sample of VALUES: random data is sent" in result.stderr


def test_json_has_the_figures_of_a_run_over_grpc(run: Run, app: Path, url: str, perf_analyzer: Path) -> None:
    file = app / "graph.yaml"
    file.write_text(file.read_text().replace("latency_ms: 100 ", "latency_ms: 40 "))
    result = run("bench", app, "--url", url, "--protocol", "grpc", "--rate", 20, "--duration", 5, "-o", "json")
    found = json.loads(result.stdout)
    assert found.pop("command")[0] == str(perf_analyzer)
    assert found == {
        "graph": "hello",
        "protocol": "grpc",
        "url": url,
        "concurrency": None,
        "rate_rps": 20.0,
        "duration_s": 5.0,
        "made_up_inputs": ["VALUES"],
        "requests": 2970,
        "failed": 0,
        "throughput_rps": 219.837,
        "latency_ms": {"p50": 12.666, "p90": 24.515, "p95": 30.231, "p99": 41.035},
        "slo": {"latency_ms": 40.0, "percentile": 99.0, "met": False},
    }


@pytest.mark.parametrize("empty_windows", [1, 2])
def test_a_window_without_requests_is_measured_again(
    run: Run, app: Path, url: str, perf_analyzer: Path, tmp_path: Path, empty_windows: int
) -> None:
    runs = tmp_path / "runs"
    perf_analyzer.write_text(
        f"#!/bin/sh\necho once >> {runs}\n"
        f"if [ $(wc -l < {runs}) -le {empty_windows} ]; then\n"
        "  echo 'error: failed to find the requested model version'; exit 99\n"
        f"fi\ncat {tmp_path}/told\nfor last; do :; done\ncp {tmp_path}/csv $last\n"
    )
    result = run("bench", app, "--url", url, "--rate", 2, "--duration", 6, "-o", "json")
    assert "--measurement-request-count 4 " in result.stderr, "of two requests a second 4 in each of 3 windows"
    assert "--measurement-request-count 8 " in result.stderr
    assert "measuring again, for twice as long" in result.stderr
    assert len(runs.read_text().splitlines()) == 2
    if empty_windows == 1:
        assert json.loads(result.stdout)["duration_s"] == 12.0
    else:
        assert result.exit_code == 1
        assert "run it again with a longer --duration" in json.loads(result.stdout)["error"]["hint"]


def test_the_running_deployment_is_the_default(
    run: Run, app: Path, url: str, perf_analyzer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployment, "find_status", lambda _: {"gateway": {"http": "nowhere:1", "grpc": url}})
    assert run("bench", app, "--protocol", "grpc").exit_code == 0
    assert f"-i grpc -u {url}" in (tmp_path / "args").read_text()


@pytest.mark.parametrize(("protocol", "port"), [("http", 8000), ("grpc", 8001)])
def test_the_default_ports_are_used_if_nothing_is_deployed(
    run: Run, app: Path, perf_analyzer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, port: int
) -> None:
    monkeypatch.setattr(bench, "_require_listener", lambda _: None)
    assert run("bench", app, "--protocol", protocol).exit_code == 0
    assert f"-u 127.0.0.1:{port}" in (tmp_path / "args").read_text()


def test_a_percentile_that_is_not_reported_is_named(run: Run, app: Path, url: str, perf_analyzer: Path) -> None:
    file = app / "graph.yaml"
    file.write_text(file.read_text().replace("percentile: 99", "percentile: 99.9"))
    result = run("bench", app, "--url", url)
    assert result.exit_code == 0
    assert "a percentile that perf_analyzer does not report" in result.stdout


def test_failed_requests_are_an_error(run: Run, app: Path, url: str, perf_analyzer: Path, tmp_path: Path) -> None:
    (tmp_path / "told").write_text(REFUSED)
    (tmp_path / "csv").unlink()
    result = run("bench", app, "--url", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: {url}: requests failed" in result.stderr
    assert "queue is full" in result.stderr


def test_an_address_where_nothing_listens_is_a_state_error(run: Run, app: Path, perf_analyzer: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = run("bench", app, "--url", f"127.0.0.1:{port}")
    assert result.exit_code == 4
    assert "no server answers" in result.stderr
    assert "jigsaw-triton deploy" in result.stderr


@pytest.mark.parametrize("url", ["http://localhost:8000", "localhost", "localhost:0", "localhost:http"])
def test_a_wrong_address_is_an_input_error(run: Run, app: Path, perf_analyzer: Path, url: str) -> None:
    result = run("bench", app, "--url", url)
    assert result.exit_code == 2
    assert "is not HOST:PORT" in result.stderr


def test_rate_and_concurrency_exclude_each_other(run: Run, app: Path) -> None:
    result = run("bench", app, "--rate", 1, "--concurrency", 1)
    assert result.exit_code == 2
    assert "cannot be used together" in result.stderr


def test_a_missing_perf_analyzer_has_a_hint(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingDependencyError("perf_analyzer is missing", hint="install it")

    monkeypatch.setattr(bench, "find_perf_analyzer", missing)
    result = run("bench", app)
    assert result.exit_code == 1
    assert "hint: install it" in result.stderr
