import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton import __version__
from tests.e2e.commands import Commands, Running
from tests.waiting import WAIT_LIMIT_S, eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    """Commands of the tests of this module."""
    made = Commands()
    yield made
    made.close()


def test_a_command_has_its_own_arguments_environment_and_outputs(commands: Commands, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    version = commands.run(["--version"], environment, WAIT_LIMIT_S)
    assert (version.code, version.out, version.err) == (0, f"jigsaw-triton {__version__}\n", "")
    state = {"JIGSAW_STATE": str(tmp_path / "none")}
    assert commands.run(["status"], environment | state, WAIT_LIMIT_S).code == 4
    missing = commands.run(["status", "--state"], environment, WAIT_LIMIT_S)
    assert (missing.code, missing.out) == (2, "")
    assert "--state" in missing.err
    # No command has changed the process from which the next one is forked.
    assert commands.run(["--version"], environment, WAIT_LIMIT_S) == version


def test_a_program_runs_a_command_in_a_fork(commands: Commands, tmp_path: Path) -> None:
    requests = commands.write_program(tmp_path / "jigsaw-triton")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JIGSAW_STATE": str(tmp_path / "none")}
    for text, code, out in (
        ("jigsaw-triton --version | cat", 0, f"jigsaw-triton {__version__}\n"),
        ("jigsaw-triton status", 4, ""),
    ):
        ran = subprocess.run(
            ["bash", "-c", text], env=environment, pass_fds=[requests], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (code, out), ran.stderr


def test_ctrl_c_in_a_program_ends_its_command(commands: Commands, tmp_path: Path) -> None:
    program = tmp_path / "jigsaw-triton"
    requests = commands.write_program(program)
    environment = {"PATH": os.environ["PATH"], "JIGSAW_STATE": str(tmp_path / "none")}
    arguments = [str(program), "status", "--wait", "ready"]
    with subprocess.Popen(arguments, env=environment, pass_fds=[requests], process_group=0) as running:
        try:
            eventually(lambda: len(_group(running.pid)) == 2)
            os.killpg(running.pid, signal.SIGINT)
            assert running.wait(WAIT_LIMIT_S) == 130
            assert _group(running.pid) == []
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def _group(number: int) -> list[int]:
    """Returns the ids of the processes of a process group."""
    found = []
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == number:
                found.append(pid)
    return found


def test_a_command_that_takes_too_long_is_killed(commands: Commands, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "JIGSAW_STATE": str(tmp_path / "none")}
    with pytest.raises(TimeoutError, match="status --wait ready took longer"):
        commands.run(["status", "--wait", "ready"], environment, 1.0)
    commands.run(["--version"], environment, WAIT_LIMIT_S)


def test_a_command_is_killed_if_the_wait_for_it_is_interrupted(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"PATH": os.environ["PATH"], "JIGSAW_STATE": str(tmp_path / "none")}
    started: list[Running] = []

    def start(*arguments: Any) -> Running:
        started.append(Commands.start(commands, *arguments))
        interrupt.start()
        return started[-1]

    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    monkeypatch.setattr(commands, "start", start)
    try:
        with pytest.raises(KeyboardInterrupt):
            commands.run(["status", "--wait", "ready"], environment, WAIT_LIMIT_S)
    finally:
        interrupt.cancel()
    assert [command.poll() for command in started] == [-signal.SIGKILL]


def test_the_process_that_forks_ends_with_the_one_that_started_it() -> None:
    assert Commands().close() == 0
