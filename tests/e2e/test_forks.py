"""A fork is like a new process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import forks
from tests.waiting import WAIT_LIMIT_S

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
    line = child.stdout.readline()
    if not text:
        child.terminate()
    return json.loads(line), child.communicate(text)[0], child.returncode


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
    assert forked == new
    (_, out, status), (_, _, killed) = forked
    assert (out, status, killed) == ("done\n", 7, -signal.SIGTERM)
    assert (last, ran.stderr) == ("the parent ends", "")
