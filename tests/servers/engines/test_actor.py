"""The keeper of an agent, with a program in place of jigsaw-triton."""

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jigsaw_triton.servers.engines.actor import AgentKeeper

PATIENCE_S = 60.0

PROGRAM = """\
import json, os, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "calls").open("a") as file:
    print(json.dumps(sys.argv[2:]), file=file)
if sys.argv[2] == "agent":
    if (folder / "refuses").exists():
        sys.exit("port 7440 is already in use")
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    agent = subprocess.Popen(["sleep", "600"], start_new_session=True, **silent)
    (folder / "pid").write_text(str(agent.pid))
    print(json.dumps({"pid": agent.pid}))
elif (folder / "pid").exists():
    # The agent is a child of nobody here, so that whoever waits for it waits for the end of its process.
    assert not os.path.exists("/proc/" + (folder / "pid").read_text() + "/exe")
"""


class World:
    """A keeper and its program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keepers: list[AgentKeeper] = []
        (folder / "program.py").write_text(PROGRAM)

    def keeper(self) -> AgentKeeper:
        program = (sys.executable, str(self.folder / "program.py"), str(self.folder))
        files = {"cert.pem": "certificate", "key.pem": "key"}
        keeper = AgentKeeper("a", "10.0.0.1", 7440, str(self.folder / "state"), files, program, dict(os.environ))
        self.keepers.append(keeper)
        return keeper

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def pid(self) -> int:
        return int((self.folder / "pid").read_text())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for keeper in world.keepers:
        assert keeper.end() == ""


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_an_agent_is_started_with_its_certificates(world: World) -> None:
    assert world.keeper().report(PATIENCE_S) == ""
    state = world.folder / "state" / "a"
    certificates = str(state / "certificates")
    where = ["--listen", "10.0.0.1:7440", "--certificates", certificates, "--state", str(state)]
    assert world.calls() == [["agent", "--name", "a", *where, "--detach", "--replace", "-o", "json"]]
    key = state / "certificates" / "key.pem"
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == ("key", 0o600)


def test_an_agent_that_dies_is_started_again(world: World) -> None:
    keeper = world.keeper()
    assert keeper.report(PATIENCE_S) == ""
    before = world.pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: world.pid() != before)
    assert keeper.report(PATIENCE_S) == ""


def test_an_agent_that_does_not_start_is_tried_again_and_the_reason_is_told(world: World) -> None:
    (world.folder / "refuses").touch()
    keeper = world.keeper()
    assert keeper.report(PATIENCE_S) == "port 7440 is already in use"
    (world.folder / "refuses").unlink()
    wait_until(lambda: keeper.report(PATIENCE_S) == "")


def test_the_end_of_a_keeper_ends_the_agent_and_its_workers(world: World) -> None:
    keeper = world.keeper()
    assert keeper.report(PATIENCE_S) == ""
    assert keeper.end() == ""
    assert world.calls()[-1] == ["down", "--state", str(world.folder / "state" / "a")]


def test_a_report_does_not_wait_for_ever(world: World) -> None:
    keeper = world.keeper()
    assert keeper.report(0.0) in ("", "the agent has not started within 0 s")
