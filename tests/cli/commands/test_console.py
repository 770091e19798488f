"""The command `console`, and `deploy --console`, without a server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.cli.commands import console, deploy
from jigsaw_triton.console.web.running import OpenConsole
from jigsaw_triton.console.web.settings import ConsoleSettings
from tests.cli.conftest import Run
from tests.e2e.system import free_ports
from tests.fakes.controller import FakeController

URL = "http://127.0.0.1:8080/login?token=x"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ConsoleSettings]:
    """Settings of the consoles that commands run, which end at once."""
    found: list[ConsoleSettings] = []

    def run_console(_: object, settings: ConsoleSettings, announce: Callable[[str], None]) -> None:
        found.append(settings.checked())
        announce(URL)

    monkeypatch.setattr(console, "run_console", run_console)
    monkeypatch.setattr(console, "running_console", lambda _: None)
    return found


def running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a console with the default options run."""
    found = OpenConsole(URL, ConsoleSettings().to_json())
    monkeypatch.setattr(console, "running_console", lambda _: found)


def test_the_console_listens_on_this_machine_and_only_shows(run: Run, started: list[ConsoleSettings]) -> None:
    result = run("console")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == URL
    assert "Ctrl-C" in result.stderr
    assert started == [ConsoleSettings()]


def test_options_are_settings(run: Run, started: list[ConsoleSettings]) -> None:
    password = Path("password")
    password.write_text("correct horse battery\n")
    password.chmod(0o600)
    words = ["--address", "0.0.0.0", "--port", 8443, "--tls-cert", "c.pem", "--tls-key", "k.pem", "--allow-changes"]
    result = run("console", *words, "--password-file", password, "--host", "gpu1", "--host", "gpu1.example.org")
    assert result.exit_code == 0, result.stderr
    assert started == [
        ConsoleSettings(
            address="0.0.0.0",
            port=8443,
            allow_changes=True,
            tls_cert=Path("c.pem"),
            tls_key=Path("k.pem"),
            password="correct horse battery",
            hosts=("gpu1", "gpu1.example.org"),
        )
    ]


def test_an_unsafe_address_is_refused(run: Run, started: list[ConsoleSettings]) -> None:
    result = run("console", "--address", "0.0.0.0")
    assert result.exit_code == 2
    assert "--password-file" in result.stderr
    assert started == []


def test_a_running_console_gives_a_new_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    result = run("console", "-o", "json")
    assert result.exit_code == 0
    assert URL in result.stdout
    # Options with the values of the running console need no other console.
    assert run("console", "--port", 8080).exit_code == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--port", 9090], "--port"),
        (["--allow-changes", "--host", "gpu1"], "--allow-changes, --host"),
        (["--tls-cert", "c.pem", "--tls-key", "k.pem"], "--tls-cert, --tls-key"),
    ],
)
def test_other_options_of_a_running_console_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[Any], named: str
) -> None:
    running(monkeypatch)
    result = run("console", *words)
    assert result.exit_code == 4
    assert f"on port 8080, with another value of {named}" in result.stderr
    assert "console --stop" in result.stderr
    # A variable of the environment may be meant for other consoles.
    assert run("console", env={"JIGSAW_PORT": "9090"}).exit_code == 0


def test_a_running_console_of_an_earlier_release_gives_a_new_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "running_console", lambda _: OpenConsole(URL, {}))
    assert run("console", "--port", 9090).stdout.strip() == URL


@pytest.mark.parametrize(("ended", "words"), [(True, "the console has ended"), (False, "was killed")])
def test_a_running_console_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch, ended: bool, words: str) -> None:
    monkeypatch.setattr(console, "stop_console", lambda _: ended)
    result = run("console", "--stop")
    assert result.exit_code == 0
    assert words in result.stdout


def test_without_a_running_console_there_is_nothing_to_end(run: Run, tmp_path: Path) -> None:
    result = run("console", "--stop", "--state", tmp_path / "nowhere")
    assert result.exit_code == 4
    assert "no console is running here" in result.stderr


def test_the_end_takes_no_other_option(run: Run) -> None:
    result = run("console", "--stop", "--port", 9090)
    assert result.exit_code == 2
    assert "omit --port" in result.stderr


def test_nothing_was_deployed(run: Run, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("<title>console</title>")
    result = run("console", "--state", tmp_path / "nowhere", env={"JIGSAW_CONSOLE_ASSETS": str(pages)})
    assert result.exit_code == 4
    assert "nothing was deployed here yet" in result.stderr


@pytest.mark.parametrize(("words", "port"), [(["--console"], 8080), (["--console", "9090"], 9090)])
def test_a_deployment_starts_its_console(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], port: int
) -> None:
    FakeController().install(monkeypatch)
    asked: list[Any] = []

    def start_console(_: object, asked_port: int) -> str:
        asked.append(("start", asked_port))
        return URL

    monkeypatch.setattr(deploy, "check_console", lambda _, asked_port: asked.append(("check", asked_port)))
    monkeypatch.setattr(deploy, "start_console", start_console)
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    http, grpc, metrics = map(str, free_ports(3))
    ports = ("--http", http, "--grpc", grpc, "--metrics", metrics)
    result = run("deploy", app, "--gpus", "2xcpu", "--demand", "2", "--detach", *ports, *words)
    assert result.exit_code == 0, result.stderr
    assert f"web console: {URL}" in result.stderr
    assert asked == [("check", port), ("start", port)]
