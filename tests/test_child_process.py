"""Processes that end with the one that started them."""

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError, SpecError
from jigsaw_triton.planner.search.attempt import OutOfTimeError

ORPHANS = """
import sys
from jigsaw_triton.child_process import ChildProcess
from tests.planner.solver.test_solver import hard
from jigsaw_triton.planner.solver.solver import SolverProcess
with SolverProcess("cbc") as solver:
    waiting = ChildProcess("jigsaw_triton.controller.planning.worker")
    print(solver.pid, waiting.pid, flush=True)
    solver.solve(hard(), 600.0)
"""
"""Starts a solver that is busy for minutes, in a process of its own, and a planning process that waits."""

GONE_S = 20.0


def session(leader: int) -> set[int]:
    """Returns the processes of a session that have not ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(number) == leader and state != "Z":
            found.add(int(path.parent.name))
    return found


def test_no_process_outlives_the_one_that_started_it_even_if_that_one_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        busy, waiting = map(int, parent.stdout.readline().split())
        deadline = time.monotonic() + GONE_S
        while len(session(busy)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(session(busy)) == 2, "CBC is a process of its own"
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + GONE_S
    while (left := session(busy) | session(waiting)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize(
    "error",
    [
        InputError("wrong", where="graph.yaml:3", hint="correct it"),
        InfeasibleError(["one", "two"], hint="less", conflict=["a.latency_ms"], nearest={"a.latency_ms": 3.0}),
        OutOfTimeError(10.0),
        SpecError([]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: JigsawError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
