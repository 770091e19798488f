"""Processes that end with the one that started them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from jigsaw_triton.child_process import ChildHungError, ChildProcess
from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError, SpecError
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from jigsaw_triton.planner.solver.program import SolverName

ORPHANS = """
import sys
from jigsaw_triton.child_process import ChildProcess
from tests.planner.solver.test_solver import hard
from jigsaw_triton.planner.solver.solver import SolverProcess
with SolverProcess(sys.argv[1]) as solver:
    waiting = ChildProcess("jigsaw_triton.controller.planning.worker")
    print(solver.pid, waiting.pid, flush=True)
    solver.solve(hard(), 600.0)
"""
"""Starts a solver that is busy for minutes, in a process of its own, and a planning process that waits."""

GONE_S = 20.0

COMPUTES_S = 1.0
"""Seconds of processor time that a solver does not use before its first program."""

HANG_S = 0.5
"""Seconds that a call may take which never ends by itself."""

LARGE = b"x" * 4_000_000
"""A request that fits into no buffer of a connection."""


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


def computes(solver: SolverName, leader: int) -> bool:
    """Returns True once the solver works: CBC is a process of its own, and HiGHS a library in the solver's process."""
    if solver == "cbc":
        return len(session(leader)) == 2
    user, system = map(int, Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[11:13])
    return user + system > COMPUTES_S * os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_no_process_outlives_the_one_that_started_it_even_if_that_one_is_killed(solver: SolverName) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS, solver], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        busy, waiting = map(int, parent.stdout.readline().split())
        deadline = time.monotonic() + GONE_S
        while not computes(solver, busy) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert computes(solver, busy)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + GONE_S
    while (left := session(busy) | session(waiting)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.slow
def test_a_process_that_does_not_read_a_large_request_is_killed_at_the_deadline() -> None:
    process = ChildProcess("jigsaw_triton.planner.solver.worker", "highs")
    os.kill(process.pid, signal.SIGSTOP)
    # Without a deadline, `kill` ends the call, which then raises another error.
    rescue = Timer(GONE_S, process.kill)
    rescue.start()
    try:
        with pytest.raises(ChildHungError):
            process.call(LARGE, HANG_S)
    finally:
        rescue.cancel()
    assert not process.alive


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
