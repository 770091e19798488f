"""Agents in the background, with another program in place of the agent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jigsaw_triton.agent.background import announce, end_agent, start_agent
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError, StateError

LISTENS = "import os, time; from jigsaw_triton.agent.background import announce; announce(os.environ['NOTIFY_SOCKET'])"


def paths(folder: Path) -> Paths:
    return Paths(folder / "state", folder / "run" / "x")


def test_an_agent_in_the_background_has_begun_to_listen(run_dir: Path) -> None:
    pid = start_agent(paths(run_dir), [sys.executable, "-c", f"{LISTENS}; print('here', flush=True); time.sleep(600)"])
    try:
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_an_agent_that_does_not_start_is_an_error_with_its_log_and_its_exit_code(run_dir: Path) -> None:
    log = paths(run_dir).log("agent")
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier agent\n")
    with pytest.raises(
        JigsawError,
        match=r"the agent did not start; its log ends with:\n  the port is taken; correct what",
    ) as caught:
        start_agent(paths(run_dir), [sys.executable, "-c", "import sys; print('the port is taken'); sys.exit(2)"])
    assert caught.value.exit_code == 2


def test_an_agent_that_nobody_waits_for_announces_nothing() -> None:
    announce("")
    announce("@nobody-listens-on-this-socket")


def test_a_controller_is_not_ended_in_place_of_an_agent(run_dir: Path) -> None:
    where = paths(run_dir)
    where.create()
    lock = take_lock(where.supervisor_lock)
    try:
        with pytest.raises(StateError, match="a controller is running here; give each agent its own folder"):
            end_agent(where)
    finally:
        os.close(lock)
    end_agent(where)


def test_an_agent_is_ended(run_dir: Path) -> None:
    where = paths(run_dir)
    where.create()
    code = (
        "import sys, time; from pathlib import Path; from jigsaw_triton.controller.persistence import lock\n"
        "lock.begin_heartbeat(lock.take_lock(Path(sys.argv[1]))); print(flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(where.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        end_agent(where)
        assert agent.wait(60) == -signal.SIGTERM
