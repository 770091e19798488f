import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jigsaw_triton.servers.os_process import UNKNOWN_STATUS, OsProcess, describe_status, start_time

SPAWN = """
import asyncio, os, sys
from jigsaw_triton.servers.os_process import OsProcess
async def main():
    process = OsProcess.spawn(("/bin/sleep", "60"), output=2, survives=sys.argv[1] == "survives")
    print(process.pid, flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


def spawn(tmp_path: Path, *argv: str) -> OsProcess:
    with (tmp_path / "log").open("wb") as log:
        return OsProcess.spawn(argv, output=log.fileno())


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("exit 0", 0)])
def test_a_child_ends_with_its_status(tmp_path: Path, script: str, status: int) -> None:
    async def main() -> None:
        process = spawn(tmp_path, "/bin/sh", "-c", script)
        first, second = await asyncio.gather(process.wait(), process.wait())
        assert first == second == process.returncode == status
        process.send_signal(signal.SIGTERM)  # No process gets a signal that is sent after the end of this one.

    asyncio.run(main())


def test_a_process_that_somebody_else_started_is_watched() -> None:
    async def main(pid: int) -> None:
        started = start_time(pid)
        assert started is not None
        found = OsProcess.find(pid, started)
        assert found is not None and found.returncode is None
        found.send_signal(signal.SIGKILL)
        assert await found.wait() == UNKNOWN_STATUS

    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        asyncio.run(main(other.pid))


def test_a_process_that_only_has_the_id_is_not_taken_for_another() -> None:
    async def main(ended: int) -> None:
        started = start_time(os.getpid())
        assert started is not None
        assert OsProcess.find(os.getpid(), started + 1) is None
        assert OsProcess.find(ended, 1) is None

    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
    asyncio.run(main(child.pid))


def test_a_zombie_has_no_start_time() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None


@pytest.mark.parametrize("survives", [True, False])
def test_a_program_outlives_its_parent_only_where_it_is_to(survives: bool) -> None:
    argument = "survives" if survives else "ends"
    with subprocess.Popen(
        [sys.executable, "-c", SPAWN, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while Path(f"/proc/{pid}/cmdline").read_bytes() != b"/bin/sleep\x0060\x00":
            pass
        parent.kill()

    async def main() -> None:
        started = start_time(pid)
        found = OsProcess.find(pid, started) if started is not None else None
        if survives:
            assert found is not None and found.returncode is None
            found.send_signal(signal.SIGKILL)
        if found is not None:
            async with asyncio.timeout(30):
                await found.wait()

    asyncio.run(main())


@pytest.mark.parametrize(("status", "words"), [(0, "status 0"), (-9, "signal 9"), (UNKNOWN_STATUS, "unknown status")])
def test_statuses_are_described_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words
