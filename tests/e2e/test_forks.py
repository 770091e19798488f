"""A fork is like a new process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jigsaw_triton.servers.os_process import start_time
from tests.e2e import forks
from tests.waiting import WAIT_LIMIT_S, eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CHILD = """
import atexit, json, os, signal, sys
from pathlib import Path

seen = {
    "name": __name__,
    "arguments": sys.argv[1:],
    "shown": Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode(),
    "folder": os.getcwd(),
    "variables": dict(os.environ),
    "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpid(),
    "files": sorted(os.listdir("/proc/self/fd")),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
}
print(json.dumps(seen), flush=True)
atexit.register(print, "done")
sys.exit(int(sys.stdin.readline()))
"""

PARENT = """
import atexit, json, os, signal, subprocess, sys, threading
from pathlib import Path
from tests.e2e import forks

atexit.register(print, "the parent ends")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
    signal.signal(number, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
threading.Thread(target=threading.Event().wait, daemon=True).start()
command = [sys.executable, "-P", "-m", "child", "a", "b c"]
options = {"text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}


def ran(kept, text):
    child = subprocess.Popen(command, pass_fds=[kept], cwd="/", env={**os.environ, "NEW": "x=y"}, **options)
    shown = Path(f"/proc/{child.pid}/cmdline").read_bytes().rstrip(b"\\0").decode()
    line = child.stdout.readline()
    if not text:
        child.terminate()
    return json.loads(line), child.communicate(text)[0], child.returncode, shown


_, kept = os.pipe()
new = ran(kept, "7\\n"), ran(kept, "")
forks.fork_children("child")
print(json.dumps([new, (ran(kept, "7\\n"), ran(kept, ""))]))
"""


def test_a_fork_begins_and_ends_as_a_new_process_does(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    ran = subprocess.run(
        [sys.executable, "-c", PARENT, " " * forks.COMMAND_LINE_BYTES],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=WAIT_LIMIT_S,
        check=True,
    )
    printed, last = ran.stdout.splitlines()
    new, forked = json.loads(printed)
    assert [of_one[:3] for of_one in forked] == [of_one[:3] for of_one in new]
    (seen, out, status, shown), (_, _, killed, _) = forked
    assert shown == seen["shown"]
    assert (out, status, killed) == ("done\n", 7, -signal.SIGTERM)
    assert (last, ran.stderr) == ("the parent ends", "")


SPARE = """
import sys
from tests.e2e import forks

pid, connection = forks._forked_spare()
print(pid, flush=True)
sys.stdin.read()
"""


def test_a_spare_process_has_a_name_of_its_own_and_ends_with_its_controller() -> None:
    command = [sys.executable, "-c", SPARE, " " * forks.COMMAND_LINE_BYTES]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        spare = int(controller.stdout.readline())
        line = Path(f"/proc/{spare}/cmdline")
        eventually(lambda: line.read_bytes().rstrip(b"\0").split(b"\0")[3:] == [forks.PLANNING.encode()])
        controller.kill()
        eventually(lambda: start_time(spare) is None)
