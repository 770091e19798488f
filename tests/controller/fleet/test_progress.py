import os
import signal
import subprocess
import sys

from jigsaw_triton.controller.fleet.progress import Progress, work_of


def test_a_process_without_progress_hangs_after_a_while() -> None:
    now_s = [0.0]
    progress = Progress(60.0, lambda: now_s[0])
    assert progress.looked({1: 10, 2: 10}) == []
    now_s[0] = 59.0
    assert progress.looked({1: 11, 2: 10}) == []
    now_s[0] = 61.0
    assert progress.looked({1: 11, 2: 10}) == [2]
    now_s[0] = 62.0
    assert progress.looked({1: 11}) == []
    # An id that comes back stands for another process.
    assert progress.looked({2: 10}) == []


def test_a_process_that_computes_works_until_it_is_stopped() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        seen = {work_of(process.pid)}
        while len(seen) < 3:
            seen.add(work_of(process.pid))
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        stopped = work_of(process.pid)
        assert work_of(process.pid) == stopped
        process.kill()
        process.wait()
        assert work_of(process.pid) == 0
