"""Draining: a slot file is locked while calls to a model are in flight, and by the process that drains the model."""

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.native.conftest import Bench, column, occupy
from tests.native.draining import drain
from tests.native.worker import Handler
from tests.waiting import WAIT_LIMIT_S

SPAWN = multiprocessing.get_context("spawn")


def slot(bench: Bench) -> Path:
    return bench.run_dir / "slots" / "w" / "m"


def test_calls_wait_while_a_model_is_drained(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    with drain(slot(bench), WAIT_LIMIT_S) as drained:
        assert drained
        request = front.send({"X": column(1)})
        assert not request.ended(0.1)
        assert not worker.calls
    assert request.wait()["Y"].item() == 2


def test_draining_waits_for_calls_in_flight(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    (request,) = occupy(front, worker)
    assert slot(bench).stat().st_mode & 0o777 == 0o600
    with drain(slot(bench), 0.05) as drained:
        assert not drained
    threading.Timer(0.1, worker.answering.set).start()
    with drain(slot(bench), WAIT_LIMIT_S) as drained:
        assert drained
        assert request.wait()["Y"].item() == -2


def test_a_model_is_drained_under_load(bench: Bench) -> None:
    """A model that has left the route finishes its calls in flight and gets no more, although requests wait."""
    worker = bench.worker()
    other = bench.worker("v")
    bench.route("w", batch=1, slots=2)
    front = bench.front()
    worker.answering.clear()
    requests = front.send_many(50, {"X": column(3)})
    worker.wait(2)
    bench.route("v")
    worker.answering.set()
    with drain(slot(bench), WAIT_LIMIT_S) as drained:
        assert drained
        calls = len(worker.calls)
        for request in requests:
            assert request.wait()["Y"].item() == 6
        assert front.ask({"X": column(1)})["Y"].item() == 2
        assert len(worker.calls) == calls
    assert other.calls


def test_a_route_that_changed_before_the_lock_was_taken_takes_effect(bench: Bench) -> None:
    """A rollout replaces the route, drains the model, and may undo both."""
    first, second = bench.worker("w"), bench.worker("v")
    bench.route("w")
    front = bench.front()
    requests = []
    for turn in range(20):
        requests += front.send_many(5, {"X": column(turn)})
        bench.route("v")
        with drain(slot(bench), WAIT_LIMIT_S) as drained:
            assert drained
            calls = len(first.calls)
            requests += front.send_many(5, {"X": column(turn)})
            assert len(first.calls) == calls
        bench.route("w")
    for request in requests:
        assert request.wait().failure is None
    assert first.calls and second.calls


def test_draining_does_not_delay_other_models_of_the_worker(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    with drain(slot(bench).with_name("other"), WAIT_LIMIT_S) as drained:
        assert drained
        assert front.ask({"X": column(1)})["Y"].item() == 2


@pytest.mark.slow
def test_slots_are_free_after_calls_that_failed(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", slots=2, batch=1)
    front = bench.front()
    handlers: list[Handler] = [lambda call: b"garbage\r\n\r\n", lambda call: {}, worker.handler]
    for handler in handlers:
        worker.handler = handler
        for request in front.send_many(2, {"X": column(1)}):
            request.wait()
        with drain(slot(bench), WAIT_LIMIT_S) as drained:
            assert drained


def test_a_deleted_slot_file_is_created_again(bench: Bench) -> None:
    """A lock on a deleted file would exclude nobody."""
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    with drain(slot(bench), WAIT_LIMIT_S) as drained:
        assert drained
        slot(bench).unlink()
    worker.calls.clear()
    (request,) = occupy(front, worker)
    with drain(slot(bench), 0.05) as drained:
        assert not drained
    worker.answering.set()
    request.wait()


def drain_until_message(path: Path, pipe: Connection) -> None:
    """Drains a model in another process, reports it, and keeps it drained until a message arrives."""
    with drain(path, WAIT_LIMIT_S) as drained:
        pipe.send(drained)
        pipe.recv()


@pytest.mark.parametrize("dies", [False, True])
def test_another_process_drains_a_model_and_may_die(bench: Bench, dies: bool) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    local, remote = SPAWN.Pipe()
    process = SPAWN.Process(target=drain_until_message, args=(slot(bench), remote))
    process.start()
    try:
        assert local.recv()
        request = front.send({"X": column(4)})
        assert not request.ended(0.1)
        assert len(worker.calls) == 1
        if dies:
            process.kill()
        else:
            local.send("enough")
        assert request.wait()["Y"].item() == 8
    finally:
        process.kill()
        process.join()


def test_without_a_folder_for_slot_files_nothing_is_sent(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    (bench.run_dir / "slots").write_text("no folder")
    front = bench.front()
    request = front.send({"X": column(1)})
    time.sleep(0.05)
    assert not request.ended()
    assert not worker.calls
    (bench.run_dir / "slots").unlink()
    assert request.wait()["Y"].item() == 2
