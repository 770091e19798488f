import json
import re
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import doctor
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.servers import checks
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.checks import Check
from tests.cli.conftest import Run

GOOD = Check("cache folder", "ok", "/cache")
WARNING = Check("/dev/shm", "warning", "64 MiB free", "enlarge it")
ERROR = Check("Python backend", "error", "no libpython", "apt-get install it")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Findings of the checks of servers."""
    findings = [GOOD]
    monkeypatch.setattr(doctor, "checks", lambda: findings)
    monkeypatch.setattr(doctor, "gpu_checks", lambda: [Check("NVIDIA driver", "ok", "none answers")])
    monkeypatch.setattr(doctor, "GatewayPorts", lambda: ports(*free_ports()))
    return findings


def ports(http: int, grpc: int, metrics: int) -> GatewayPorts:
    return GatewayPorts(http, grpc, metrics)


def free_ports() -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_a_machine_without_findings_is_ok(run: Run, found: list[Check]) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "cache folder   /cache" in result.stdout
    assert "To fix" not in result.stdout


def test_a_warning_exits_with_0(run: Run, found: list[Check]) -> None:
    found.append(WARNING)
    result = run("doctor")
    assert result.exit_code == 0
    assert "/dev/shm: enlarge it" in result.stdout


def test_an_error_exits_with_1(run: Run, found: list[Check]) -> None:
    found.append(ERROR)
    result = run("doctor", "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {
        "name": "Python backend",
        "status": "error",
        "detail": "no libpython",
        "remedy": "apt-get install it",
    } in document["checks"]


def test_a_port_in_use_is_a_warning(run: Run, found: list[Check], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "GatewayPorts", lambda: ports(port, *free_ports()[:2]))
        result = run("doctor")
    assert result.exit_code == 0
    assert f"port {port} is already in use by process" in result.stdout
    assert "the gateway needs it for HTTP" in result.stdout


def test_the_certificates_and_the_port_of_an_agent_are_checked(run: Run, found: list[Check], tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    issue(tmp_path, "a", ("127.0.0.1",))
    port = free_ports()[0]
    result = run("doctor", "--certificates", str(tmp_path / "a"), "--listen", f"127.0.0.1:{port}")
    assert result.exit_code == 0
    assert re.search(r"certificates +\S+/a, valid until \d{4}-", result.stdout)
    assert re.search(rf"port {port} +free for the agent", result.stdout)


def test_a_missing_certificate_and_a_port_in_use_are_errors(run: Run, found: list[Check], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = run("doctor", "--certificates", str(tmp_path), "--listen", address, "-o", "json")
    assert result.exit_code == 1
    by_name = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert by_name["certificates"]["status"] == "error" and str(tmp_path) in by_name["certificates"]["detail"]
    assert "the agent needs it" in by_name[f"port {address.rpartition(':')[2]}"]["detail"]


def test_a_certificate_that_expires_soon_is_a_warning(
    run: Run, found: list[Check], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_authority(tmp_path, "test")
    issue(tmp_path, "a", ("127.0.0.1",))
    monkeypatch.setattr(checks, "REMIND_BEFORE", timedelta(days=365_000))
    result = run("doctor", "--certificates", str(tmp_path / "a"), "-o", "json")
    (check,) = [one for one in json.loads(result.stdout)["checks"] if one["name"] == "certificates"]
    assert check["status"] == "warning" and "certificates issue" in check["remedy"]
