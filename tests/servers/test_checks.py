import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from jigsaw_triton import __version__
from jigsaw_triton.servers import backend, installation
from jigsaw_triton.servers import checks as module
from jigsaw_triton.servers.backend import Api, BuildInfo
from jigsaw_triton.servers.cgroups import Limits
from jigsaw_triton.servers.checks import Check, checks
from tests.fakes.docker import Docker

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _no_installed_server(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(installation, "find_installed", lambda: None)
    monkeypatch.setattr(module, "find_installed", lambda: None)


def named(name: str) -> Check:
    (found,) = (check for check in checks() if check.name == name)
    return found


def test_failed_checks_have_a_remedy_and_nothing_is_downloaded(cache: Path) -> None:
    found = checks()
    assert all(check.remedy for check in found if check.status != "ok")
    assert named("tritonserver").status == "warning"
    assert not (cache / "wheels").exists()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Provides a built library and an installed tritonserver with backend API 1.19."""
    path = tmp_path / "libtriton_jigsaw.so"
    path.touch()
    path.with_name("libjigsaw_private.so").touch()
    monkeypatch.setattr(backend, "LIBRARY", path)
    monkeypatch.setattr(backend, "build_info", lambda _: BuildInfo(__version__, "g++ 12.4.0", Api(1, 19)))
    monkeypatch.setattr(backend, "server_api", lambda _binary, _env: Api(1, 19))
    server = installation.Installation(path, tmp_path, frozenset({"python", "jigsaw"}), "2.51.0", "path", {})
    monkeypatch.setattr(module, "find_installation", lambda: server)
    monkeypatch.setattr(module, "find_installed", lambda: (path, "path"))
    return path


@pytest.mark.parametrize("installed", [True, False])
def test_prometheus_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    program = tmp_path / "prometheus"
    if installed:
        program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = module._prometheus("Prometheus")
    assert check.status == "ok"
    assert check.detail.startswith(str(program) if installed else "none on PATH")
    assert ("apt-get install prometheus" in check.detail) != installed


def test_a_matching_compiled_backend_is_ok(library: Path) -> None:
    summary = f"{__version__}, compiled by g++ 12.4.0 for backend API 1.19; tritonserver has API 1.19"
    assert named("compiled backend") == Check("compiled backend", "ok", summary)


def test_a_missing_compiled_backend_is_an_error(library: Path) -> None:
    library.unlink()
    check = named("compiled backend")
    assert (check.status, check.detail) == ("error", f"{library}: the compiled backend is not built")
    assert "make setup" in check.remedy


def test_a_compiled_backend_of_another_version_is_an_error(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "build_info", lambda _: BuildInfo("0.0.1", "zig 0.17.1", Api(1, 19)))
    check = named("compiled backend")
    assert check.status == "error"
    assert check.detail.startswith("0.0.1, compiled by zig 0.17.1")
    assert check.detail.endswith(f"jigsaw-triton is {__version__}")


@pytest.mark.parametrize(
    ("api", "status"), [(Api(1, 18), "error"), (Api(1, 20), "ok"), (Api(2, 0), "error"), (None, "ok")]
)
def test_the_backend_api_of_the_server_must_be_compatible(
    library: Path, monkeypatch: pytest.MonkeyPatch, api: Api | None, status: str
) -> None:
    monkeypatch.setattr(backend, "server_api", lambda _binary, _env: api)
    check = named("compiled backend")
    assert check.status == status
    assert ("1.19 or a later 1.x" in check.remedy) == (status == "error")


def test_a_compiled_backend_that_cannot_be_loaded_is_an_error(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(backend, "LIBRARY", library)
    check = named("compiled backend")
    assert (check.status, "cannot be loaded" in check.detail) == ("error", True)


def test_a_small_shm_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**26, 0, 2**26))
    check = named("/dev/shm")
    assert check.status == "warning"
    assert check.detail.startswith("64 MiB free")
    assert "--shm-size" in check.remedy


def test_a_missing_shm_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SHM", tmp_path / "none")
    assert named("/dev/shm").status == "error"


@pytest.mark.parametrize(("hard", "status"), [(1024, "warning"), (4096, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_a_low_limit_on_open_files_is_a_warning(monkeypatch: pytest.MonkeyPatch, hard: int, status: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    check = named("open files")
    assert (check.status, "nofile=4096" in check.remedy) == (status, status == "warning")


@pytest.mark.parametrize(("size", "status"), [("212992\n", "warning"), ("3145728\n", "ok"), (None, "ok")])
def test_small_socket_buffers_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str | None, status: str
) -> None:
    path = tmp_path / "wmem_default"
    if size is not None:
        path.write_text(size)
    monkeypatch.setattr(module, "SEND_BUFFER", path)
    assert named("socket buffers").status == status


def test_the_warning_about_socket_buffers_says_how_many_answers_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wmem_default").write_text("212992\n")
    monkeypatch.setattr(module, "SEND_BUFFER", tmp_path / "wmem_default")
    check = named("socket buffers")
    assert "over 277 HTTP requests" in check.detail
    assert "wmem_default=3145728" in check.remedy


def test_an_unusable_cache_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JIGSAW_CACHE", str(tmp_path / "file" / "cache"))
    assert named("cache folder").status == "error"


def test_a_missing_perf_analyzer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    check = named("perf_analyzer")
    assert check.status == "error"
    assert "tritonclient[all]" in check.remedy


def test_a_perf_analyzer_that_does_not_run_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho 'libssl.so.1.1: cannot open shared object file' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr(module, "find_perf_analyzer", lambda: program)
    check = named("perf_analyzer")
    assert check.status == "error"
    assert "libssl.so.1.1" in check.detail


def test_a_low_limit_on_processes_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    check = named("processes")
    assert (check.status, check.remedy) == ("warning", "ulimit -u 1024")


def test_tight_limits_of_a_container_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "limits", lambda: Limits(2048, 1.5, 32_000))
    check = named("control group")
    assert check.status == "warning"
    assert check.detail == "tight limits: 2048 MiB, 1.5 processors, 32000 processes and threads"
    assert check.remedy == "docker run --memory=8g --cpus=4"


def test_a_machine_without_limits_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "limits", lambda: Limits(None, None, None))
    assert named("control group") == Check("control group", "ok", "no limits")


def test_the_program_that_runs_containers_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(tmp_path / "docker")
    monkeypatch.setenv("PATH", "")
    assert (named("container runtime").status, "neither" in named("container runtime").detail) == ("ok", True)
    monkeypatch.setenv("PATH", f"{docker.folder}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert named("container runtime").detail.startswith(str(docker.program))
    docker.program.write_text("#!/bin/sh\necho permission denied >&2\nexit 1\n")
    check = named("container runtime")
    assert (check.status, check.detail) == ("warning", "containers cannot be listed: permission denied")
