"""The console's process: its start, its URLs, its end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from types import SimpleNamespace
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from jigsaw_triton.console.web import running
from jigsaw_triton.console.web.process import run_console
from jigsaw_triton.console.web.running import ASSETS_VARIABLE, ConsoleHungError, running_console, stop_console
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.records import STOPPED
from jigsaw_triton.errors import InputError, MissingDependencyError, StateError
from tests.e2e.system import free_ports
from tests.waiting import WAIT_LIMIT_S, eventually


@pytest.fixture
def deployed(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Provides the paths of a deployment in a folder of its own, as the process finds them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    paths = deployment_paths(run_dir / "state")
    paths.create()
    return paths


@pytest.fixture
def built(pages: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ASSETS_VARIABLE, str(pages))
    return pages


@contextmanager
def console(paths: Paths, pages: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Runs the process that `deploy --console` starts. Yields it with a URL."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "jigsaw_triton.console.web.process", str(paths.state), str(port)],
        env={**os.environ, ASSETS_VARIABLE: str(pages)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: process.poll() is not None or running_console(paths))
        assert process.poll() is None, process.communicate()[1]
        found = running_console(paths)
        assert found is not None
        assert found.url.startswith(f"http://127.0.0.1:{port}/login?token=")
        assert found.options["port"] == port
        yield process, found.url
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_url_opens_the_console_and_sigterm_ends_it(deployed: Paths, built: Path) -> None:
    with closing(Journal(deployed.journal)), console(deployed, built) as (process, url):
        browser = build_opener(HTTPCookieProcessor(CookieJar()))
        with browser.open(url, timeout=WAIT_LIMIT_S) as page:
            assert b"<title>console</title>" in page.read()
        assert deployed.console_socket.stat().st_mode & 0o077 == 0
        again = running_console(deployed)
        assert again is not None and again.url != url
        with pytest.raises(StateError, match="running already"):
            run_console(deployed, ConsoleSettings(), lambda _: None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_LIMIT_S) == 0
    assert running_console(deployed) is None
    assert not deployed.console_socket.exists()


@pytest.mark.slow
def test_a_console_ends_with_its_deployment(deployed: Paths, pages: Path) -> None:
    with closing(Journal(deployed.journal)) as journal:
        journal.event("ready", "the new generation serves")
        with console(deployed, pages) as (process, _):
            journal.event(STOPPED, "all servers of the deployment have ended")
            assert process.wait(WAIT_LIMIT_S) == 0


@pytest.mark.slow
def test_a_console_is_ended(deployed: Paths, pages: Path) -> None:
    with pytest.raises(StateError, match="no console is running"):
        stop_console(deployed)
    with closing(Journal(deployed.journal)), console(deployed, pages) as (process, _):
        assert stop_console(deployed)
        assert process.wait(WAIT_LIMIT_S) == 0
        with pytest.raises(StateError, match="no console is running"):
            stop_console(deployed)


@pytest.mark.slow
def test_a_console_that_hangs_is_killed(deployed: Paths, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_END_S", 2.0)
    with closing(Journal(deployed.journal)):
        with socket.socket(socket.AF_UNIX) as hung, monkeypatch.context() as hasty:
            hasty.setattr(running, "_ANSWER_S", 0.2)
            hung.bind(str(deployed.console_socket))
            hung.listen()
            with pytest.raises(ConsoleHungError, match="does not answer") as caught:
                running_console(deployed)
            assert "console --stop" in caught.value.hint
        deployed.console_socket.unlink()
        with console(deployed, pages) as (process, _):
            process.send_signal(signal.SIGSTOP)
            assert not stop_console(deployed)
            assert process.wait(WAIT_LIMIT_S) == -signal.SIGKILL


def test_a_console_of_another_container_is_not_ended(deployed: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel gives 0 for a process that this one cannot see.
    monkeypatch.setattr(running, "_CREDENTIALS", SimpleNamespace(size=12, unpack=lambda _: (0, 0, 0)))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(deployed.console_socket))
        other.listen()
        with pytest.raises(StateError, match="in another container"):
            stop_console(deployed)


@pytest.mark.slow
def test_a_console_that_was_killed_does_not_hinder_the_next_one(deployed: Paths, pages: Path) -> None:
    with closing(Journal(deployed.journal)):
        with console(deployed, pages) as (process, _):
            process.kill()
            process.wait(WAIT_LIMIT_S)
        assert deployed.console_socket.exists()
        assert running_console(deployed) is None
        with console(deployed, pages):
            pass


def test_a_port_that_is_taken_is_an_error(deployed: Paths, built: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is already in use") as caught:
            run_console(deployed, ConsoleSettings(port=port), lambda _: None)
        assert "--port" in caught.value.hint


def test_pages_that_were_not_built_are_an_error(
    deployed: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(MissingDependencyError, match="have not been built"):
        run_console(deployed, ConsoleSettings(), lambda _: None)


def test_without_a_deployment_there_is_nothing_to_show(tmp_path: Path, built: Path) -> None:
    paths = deployment_paths(tmp_path / "nowhere")
    with pytest.raises(StateError, match="nothing was deployed here"):
        run_console(paths, ConsoleSettings(), lambda _: None)
    assert not paths.state.exists()


def test_unsafe_settings_are_refused_first(deployed: Paths) -> None:
    with pytest.raises(InputError, match="other machines could read"):
        run_console(deployed, ConsoleSettings(address="0.0.0.0"), lambda _: None)
