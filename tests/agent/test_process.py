"""Agents in the background, with another program in place of the agent."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.agent import process
from jigsaw_triton.agent.process import _announce, end_agent, start_agent
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.logfile import MAX_BYTES

LISTENS = "import os, time; from jigsaw_triton.agent.process import _announce; _announce(os.environ['NOTIFY_SOCKET'])"


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
        JigsawError, match=r"the agent did not start; its log ends with:\n  the port is taken$"
    ) as caught:
        start_agent(paths(run_dir), [sys.executable, "-c", "import sys; print('the port is taken'); sys.exit(2)"])
    assert caught.value.exit_code == 2


def test_the_log_of_an_agent_is_kept_short(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_UPKEEP_S", 0.01)
    where = paths(run_dir)
    where.create()
    with where.log("agent").open("wb") as log:
        log.truncate(MAX_BYTES + 1)

    async def main(journal: Journal, lock: int) -> None:
        upkeep = asyncio.create_task(process._upkeep(where, journal, lock))
        async with asyncio.timeout(60):
            while where.log("agent").stat().st_size:  # noqa: ASYNC110 - a rotation has no event
                await asyncio.sleep(0.01)
        upkeep.cancel()

    lock = take_lock(where.lock)
    try:
        with closing(Journal(where.journal)) as journal:
            asyncio.run(main(journal, lock))
    finally:
        os.close(lock)
    older = where.log("agent").with_name("agent.log.1")
    assert older.stat().st_size == MAX_BYTES + 1


def test_an_agent_that_nobody_waits_for_announces_nothing() -> None:
    _announce("")
    _announce("@nobody-listens-on-this-socket")


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
