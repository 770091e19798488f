"""Starting the web console beside a deployment."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.api.console import check_console, start_console
from jigsaw_triton.console.web.running import ASSETS_VARIABLE, running_console
from jigsaw_triton.console.web.settings import PORT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.records import STOPPED
from jigsaw_triton.errors import InputError, JigsawError, MissingDependencyError, StateError
from tests.e2e.system import free_ports
from tests.waiting import eventually


@pytest.fixture
def paths(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("<title>console</title>")
    monkeypatch.setenv(ASSETS_VARIABLE, str(pages))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    made = deployment_paths(run_dir / "state")
    made.create()
    with closing(Journal(made.journal)) as journal:
        journal.event("ready", "the new generation serves")
        yield made
        # The end of the deployment ends a console that a test has started.
        journal.event(STOPPED, "all servers of the deployment have ended")
        eventually(lambda: running_console(made) is None)


@pytest.mark.slow
def test_a_console_is_started_once(paths: Paths) -> None:
    (port,) = free_ports(1)
    check_console(paths, port)
    url = start_console(paths, port)
    again = start_console(paths, port)
    assert url != again
    assert url.partition("?")[0] == again.partition("?")[0] == f"http://127.0.0.1:{port}/login"
    # The port is that of the running console; the default port counts as no choice of the user.
    check_console(paths, port)
    check_console(paths, PORT)
    with pytest.raises(StateError, match=f"running already, on port {port}"):
        check_console(paths, port + 1)


def test_what_would_fail_after_the_deployment_is_found_before(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="already in use"):
            check_console(paths, other.getsockname()[1])
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path))
    with pytest.raises(MissingDependencyError):
        check_console(paths, 8080)


def test_a_console_that_does_not_start_shows_its_log(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path))
    (port,) = free_ports(1)
    with pytest.raises(JigsawError, match=r"the console did not start.*\n.*have not been built"):
        start_console(paths, port)
