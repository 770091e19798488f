"""The process that runs benchmarks one after the other, when it is to end."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import WAIT_LIMIT_S, eventually

ROOT = Path(__file__).parents[2]

HANGING = """
import os, sys, time
from pathlib import Path
from benchmarks import __main__ as benchmarks

child = "import os, time; from pathlib import Path; Path({pid!r}).write_text(str(os.getpid())); time.sleep(600)"
benchmarks.command = lambda name: [sys.executable, "-c", child]
benchmarks.end_on_sigterm()
sys.exit(benchmarks.main(["mig"]))
"""


def test_sigterm_ends_the_benchmark_that_runs(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    runner = subprocess.Popen([sys.executable, "-c", HANGING.format(pid=str(pid))], cwd=ROOT)
    try:
        eventually(lambda: runner.poll() is not None or (pid.exists() and pid.read_text()))
        assert runner.poll() is None
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(WAIT_LIMIT_S) == 130
        # The runner has waited for it, so its id is free.
        assert not Path("/proc", pid.read_text()).exists()
    finally:
        runner.kill()
        runner.wait()
