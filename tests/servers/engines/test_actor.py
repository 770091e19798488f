"""The keeper of an agent, in a process of its own, with a program in place of jigsaw-triton."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import WAIT_LIMIT_S, eventually

PROGRAM = """\
import json, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "calls").open("a") as file:
    print(json.dumps(sys.argv[2:]), file=file)
if (folder / "refuses").exists():
    sys.exit("port 7440 is already in use")
silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
agent = subprocess.Popen(["sleep", "600"], start_new_session=True, **silent)
(folder / "pid").write_text(str(agent.pid))
print(json.dumps({"pid": agent.pid}))
"""

KEEPER = """\
import json, os, sys
from jigsaw_triton.servers.engines.actor import AgentKeeper

program, folder, state = sys.argv[1:]
files = {"cert.pem": "certificate", "key.pem": "key"}
command = (sys.executable, program, folder)
keeper = AgentKeeper("a", "10.0.0.1", 7440, state, files, command, dict(os.environ))
for line in sys.stdin:
    print(json.dumps(keeper.report(float(line))), flush=True)
"""


class World:
    """A keeper and its program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keeper: subprocess.Popen[str] | None = None

    def start(self) -> None:
        program = self.folder / "program.py"
        program.write_text(PROGRAM)
        arguments = [str(program), str(self.folder), str(self.folder / "state")]
        command = [sys.executable, "-c", KEEPER, *arguments]
        self.keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def report(self, wait_s: float = WAIT_LIMIT_S) -> str:
        assert self.keeper is not None and self.keeper.stdin is not None and self.keeper.stdout is not None
        self.keeper.stdin.write(f"{wait_s}\n")
        self.keeper.stdin.flush()
        return str(json.loads(self.keeper.stdout.readline()))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def pid(self) -> int:
        """Returns the process id of the agent that was started last; 0 while another one is being started."""
        return int((self.folder / "pid").read_text() or 0)

    def end(self) -> None:
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper.communicate()
        with suppress(OSError):
            os.kill(self.pid(), signal.SIGKILL)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


def test_an_agent_is_started_with_its_certificates(world: World) -> None:
    world.start()
    assert world.report() == ""
    state = world.folder / "state" / "a"
    certificates = str(state / "certificates")
    where = ["--listen", "10.0.0.1:7440", "--certificates", certificates, "--state", str(state)]
    assert world.calls() == [["agent", "--name", "a", *where, "--detach", "--replace", "-o", "json"]]
    key = state / "certificates" / "key.pem"
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == ("key", 0o600)


@pytest.mark.slow
def test_an_agent_that_dies_is_started_again(world: World) -> None:
    world.start()
    assert world.report() == ""
    before = world.pid()
    os.kill(before, signal.SIGKILL)
    eventually(lambda: world.pid() not in (0, before))
    eventually(lambda: world.report() == "")


@pytest.mark.slow
def test_an_agent_that_does_not_start_is_tried_again_and_the_reason_is_reported(world: World) -> None:
    (world.folder / "refuses").touch()
    world.start()
    assert world.report() == "port 7440 is already in use"
    (world.folder / "refuses").unlink()
    eventually(lambda: world.report() == "")


def test_an_agent_outlives_its_keeper(world: World) -> None:
    world.start()
    assert world.report() == ""
    assert world.keeper is not None
    world.keeper.kill()
    world.keeper.wait()
    os.kill(world.pid(), 0)


def test_a_report_does_not_wait_for_ever(world: World) -> None:
    world.start()
    assert world.report(0.0) in ("", "the agent has not started within 0 s")
