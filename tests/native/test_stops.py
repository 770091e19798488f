"""A gateway that was stopped for a while: the time of the stop counts against no worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.native import specs
from tests.native.conftest import double
from tests.native.core import library
from tests.native.parts import RunningTime
from tests.native.worker import Worker

DEADLINE_S = 2.0
"""Seconds after which a call counts as hanging."""

STOP_S = DEADLINE_S + 0.5
"""Seconds for which a gateway is stopped."""

GATEWAY = """
import json, sys
from pathlib import Path
from tests.native import specs
from tests.native.conftest import column
from tests.native.core import Engine

with Engine(Path(sys.argv[1])) as engine:
    front = engine.front(json.loads(sys.argv[2]))
    print(front.ask({"X": column(1)}).failure or "answered")
    print(engine.metric("jigsaw_service_seconds_total"), engine.metric("jigsaw_batch_seconds"))
"""
"""Program that sends a request to task `t`, and prints its outcome and the seconds that its batch took."""


@contextmanager
def gateway(run_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """Runs `GATEWAY` in a process of its own, with a deadline of `DEADLINE_S`."""
    library()  # It may have to be built.
    spec = specs.spec([specs.task(deadline_ms=1e3 * DEADLINE_S, retry=False)])
    command = [sys.executable, "-c", GATEWAY, str(run_dir), json.dumps(spec)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def stopped_during_a_call(run_dir: Path, *, answered: bool) -> str:
    """Stops a gateway for `STOP_S` during a call. Returns what it prints.

    Args:
        run_dir: Its run directory.
        answered: True if the worker answers meanwhile, False if it hangs.
    """
    specs.write_route(run_dir, specs.entry("w", service_ms={"1": 20.0}))
    with Worker(run_dir, "w", double) as worker, gateway(run_dir) as process:
        worker.answering.clear()
        worker.wait(1)
        os.kill(process.pid, signal.SIGSTOP)
        if answered:
            worker.answering.set()
        time.sleep(STOP_S)
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
        worker.answering.set()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("answered", [True, False], ids=["that answered meanwhile", "that hangs"])
def test_a_worker_is_condemned_after_a_stop_only_if_it_hangs(run_dir: Path, answered: bool) -> None:
    out = stopped_during_a_call(run_dir, answered=answered)
    assert ("answered" in out) is answered
    assert (run_dir / "condemned" / "w.json").exists() is not answered


@pytest.mark.slow
def test_a_stop_makes_no_worker_slower_than_its_profile(run_dir: Path) -> None:
    _, seconds = stopped_during_a_call(run_dir, answered=True).splitlines()
    assert all(0 < float(taken) < STOP_S for taken in seconds.split())


def test_running_time_passes_like_time_while_the_loop_takes_steps() -> None:
    running = RunningTime()
    for now_ms in range(1000, 6000, 250):
        assert running.step(now_ms)
        assert running.at(now_ms + 100) == now_ms - 1000 + 100


def test_a_stop_counts_for_at_most_one_step() -> None:
    running = RunningTime()
    running.step(1000)
    running.step(1200)
    # Before the loop takes its next step, other threads may send calls.
    assert running.at(61_200) == 700
    assert not running.step(61_200)
    assert running.at(61_200) == 700
    assert running.step(61_300)
    assert running.at(61_300) == 800
