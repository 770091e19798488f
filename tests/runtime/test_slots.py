import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from jigsaw_triton.runtime.route import RouteEntry
from jigsaw_triton.runtime.slots import SlotFile, SlotPool, drain

SPAWN = multiprocessing.get_context("spawn")


def entry(worker: str, slots: int = 1) -> RouteEntry:
    return RouteEntry(worker, "m", 8, slots)


def hold(path: Path, slots: list[int], pipe: Connection) -> None:
    """In another process: takes slots, tells which it got, and holds them until told to end."""
    file = SlotFile(path)
    pipe.send([slot for slot in slots if file.take(slot)])
    pipe.recv()
    for slot in pipe.recv():
        file.release(slot)
    pipe.send("released")
    pipe.recv()


@contextmanager
def holder(path: Path, slots: list[int]) -> Iterator[tuple[Connection, list[int], int]]:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(path, slots, there))
    process.start()
    assert process.pid is not None
    try:
        yield here, here.recv(), process.pid
    finally:
        process.kill()
        process.join()


def test_a_slot_is_taken_once_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "w" / "m"
    with holder(path, [0, 2]) as (pipe, got, pid):
        assert got == [0, 2]
        file = SlotFile(path)
        assert [file.take(slot) for slot in range(4)] == [False, True, False, True]
        assert not file.take(1)

        pipe.send(None)
        pipe.send([2])
        assert pipe.recv() == "released"
        assert [file.take(slot) for slot in (0, 2)] == [False, True]

        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert file.take(0)
        file.close()


def test_drain_waits_for_slots_that_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "w" / "m"
    with holder(path, [1]) as (pipe, _, _pid):
        ticks: list[float] = []

        def sleep(seconds: float) -> None:
            ticks.append(seconds)
            if len(ticks) == 3:
                pipe.send(None)
                pipe.send([1])
                pipe.recv()

        with drain(path, 3, timeout_s=60, sleep=sleep) as empty:
            assert empty
            assert len(ticks) == 3
        file = SlotFile(path)
        assert all(file.take(slot) for slot in range(3))
        file.close()


def test_drain_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "w" / "m"
    with holder(path, [1]):
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        with drain(path, 3, timeout_s=1, clock=lambda: now[0], sleep=sleep) as empty:
            assert not empty
        assert 1 <= now[0] < 1.1


def test_what_is_drained_cannot_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "w" / "m"
    with drain(path, 2, timeout_s=0) as empty:
        assert empty
        with holder(path, [0, 1, 2]) as (_, got, _pid):
            assert got == [2]


def test_the_pool_takes_the_worker_with_least_under_way(tmp_path: Path) -> None:
    pool = SlotPool(tmp_path)
    entries = [entry("a", 3), entry("b", 1), entry("c", 2)]
    taken = []
    while lease := pool.take(entries):
        taken.append(lease.entry.worker)
    assert sorted(taken[:3]) == ["a", "b", "c"]
    assert sorted(taken[3:5]) == ["a", "c"]
    assert taken[5:] == ["a"]
    pool.close()


def test_the_pool_takes_turns_among_equals(tmp_path: Path) -> None:
    pool = SlotPool(tmp_path)
    entries = [entry(name) for name in "abc"]
    taken = []
    for _ in range(6):
        lease = pool.take(entries)
        assert lease is not None
        taken.append(lease.entry.worker)
        lease.release()
    assert taken[:3] == taken[3:]
    assert sorted(taken[:3]) == ["a", "b", "c"]
    pool.close()


def test_a_shared_lease_frees_its_slot_at_the_last_release(tmp_path: Path) -> None:
    pool = SlotPool(tmp_path)
    lease = pool.take([entry("a")])
    assert lease is not None
    lease.hold()
    lease.release()
    assert pool.take([entry("a")]) is None
    lease.release()
    assert pool.take([entry("a")]) is not None
    pool.close()


def test_retain_closes_the_files_of_what_left_the_route(tmp_path: Path) -> None:
    pool = SlotPool(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in "ab":
        lease = pool.take([entry(name)])
        assert lease is not None
        lease.release()
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    pool.retain([entry("b")])
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    pool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
