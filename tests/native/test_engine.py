"""Workers that fail in every way they can, and what becomes of the requests."""

import contextlib
import json
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, double
from tests.native.core import PATIENCE_S, Array, eventually
from tests.native.test_queue import busy, column
from tests.native.worker import Answer, Call, Handler, HangUp, Refuse, Worker, bad, good, message, slowly


def once(bad_answer: Handler) -> Handler:
    """Goes wrong at the first call."""
    first = iter([True])
    lock = threading.Lock()

    def handler(call: Call) -> Answer:
        with lock:
            fails = next(first, False)
        return bad_answer(call) if fails else double(call)

    return handler


def hang_up(call: Call) -> Answer:
    raise HangUp


def half(call: Call) -> Iterator[bytes]:
    """Half of an answer, and the end."""
    whole = call.answer(double(call))
    yield whole[: len(whole) // 2]
    raise HangUp


def cut_head(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Le"
    raise HangUp


def most(call: Call) -> Iterator[bytes]:
    """All of an answer but its last byte."""
    yield call.answer(double(call))[:-1]
    raise HangUp


def more(call: Call) -> bytes:
    """An answer with a byte too much, in one piece."""
    whole = call.answer(double(call))
    return whole + b"x"


def described(call: Call) -> dict[str, Any]:
    size = {"binary_data_size": 8 * call.items}
    return {"name": "Y", "datatype": "INT64", "shape": [call.items, 1], "parameters": size}


def lying(call: Call) -> bytes:
    """An answer whose header tells more bytes than its description."""
    return good([described(call)], bytes(8 * call.items + 8))


def plain_json(call: Call) -> bytes:
    """An answer that is not binary."""
    return good([{"name": "Y", "datatype": "INT64", "shape": [1, 1], "data": [2]}])


def without_values(call: Call) -> bytes:
    """An answer whose values are in shared memory that nobody asked for."""
    return good([{"name": "Y", "datatype": "INT64", "shape": [call.items, 1]}])


def twice(call: Call) -> bytes:
    return good([described(call)] * 2, bytes(16 * call.items))


def no_length(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n"


def chunked(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


def garbage(call: Call) -> bytes:
    return b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n" * 100


def endless_head(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 10_000


def not_json(call: Call) -> bytes:
    return message(200, b"<html>It works!</html>")


def too_large(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"


def no_outputs(call: Call) -> bytes:
    return message(200, b"{}")


def over_long_text(call: Call) -> bytes:
    """More text than a server ever has to say."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 17000000\r\n\r\n"


BROKEN = (
    hang_up,
    half,
    cut_head,
    most,
    more,
    lying,
    plain_json,
    without_values,
    twice,
    no_length,
    chunked,
    garbage,
    endless_head,
    not_json,
    too_large,
    no_outputs,
    over_long_text,
)


@pytest.mark.parametrize("answer", BROKEN)
def test_a_batch_is_done_by_another_worker(bench: Bench, answer: Handler) -> None:
    first, second = bench.worker("a", once(answer)), bench.worker("b", once(answer))
    bench.route("a", "b")
    front = bench.front()
    second.going.clear()
    # Both are tried by turns: the first call of each goes wrong, and no request notices.
    requests = [front.send({"X": column(n, n + 1)}) for n in range(3)]
    second.going.set()
    for n, request in enumerate(requests):
        outcome = request.wait()
        if outcome.failure is None:
            assert outcome["Y"].tolist() == [[2 * n], [2 * n + 2]]
        else:
            # Its second try was the other worker's first call.
            assert "before it worker" in outcome.message
    assert front.ask({"X": column(7)})["Y"].tolist() == [[14]]
    assert first.calls or second.calls


@pytest.mark.parametrize("answer", BROKEN)
def test_the_only_worker_is_asked_once_more(bench: Bench, answer: Handler) -> None:
    worker = bench.worker("w", once(answer))
    bench.route("w")
    outcome = bench.front().ask({"X": column(1, 2)})
    assert outcome["Y"].tolist() == [[2], [4]]
    assert worker.batches == [2, 2]
    assert bench.engine.metric("jigsaw_batches_lost_total") == 1
    assert bench.engine.metric("jigsaw_batches_again_total") == 1
    assert any("task t: worker w failed: " in line for line in bench.engine.logs)


@pytest.mark.parametrize("answer", BROKEN)
def test_after_two_failures_the_request_fails_and_says_why(bench: Bench, answer: Handler) -> None:
    workers = [bench.worker(name, answer) for name in "ab"]
    bench.route("a", "b")
    outcome = bench.front().ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message.startswith("task t: worker ")
    assert "; before it worker " in outcome.message
    assert [len(worker.calls) for worker in workers] == [1, 1]
    assert bench.engine.metric("jigsaw_refused_total", reason="worker") == 1


@pytest.mark.parametrize("answer", BROKEN)
def test_what_may_have_run_does_not_run_again_where_that_is_not_allowed(bench: Bench, answer: Handler) -> None:
    workers = [bench.worker(name, answer) for name in "ab"]
    bench.route("a", "b")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    outcome = front.ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert "; before it worker" not in outcome.message
    assert sum(len(worker.calls) for worker in workers) == 1


def test_requests_of_a_lost_batch_are_tried_one_by_one(bench: Bench) -> None:
    """One of them may be what the worker died of."""

    def poisoned(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise HangUp
        return double(call)

    worker = bench.worker("w", poisoned)
    bench.route("w", batch=8)
    front = bench.front()
    busy(front, worker)
    requests = [front.send({"X": column(n)}) for n in (11, 12, 13, 14)]
    worker.going.set()
    outcomes = [request.wait() for request in requests]
    assert [o["Y"].item() for o in (outcomes[0], outcomes[1], outcomes[3])] == [22, 24, 28]
    assert outcomes[2].blame == "worker"
    assert sorted(worker.batches) == [1, 1, 1, 1, 1, 4]


@pytest.mark.parametrize(("status", "blame"), [(400, "request"), (500, "model"), (413, "model")])
def test_only_the_faulty_request_of_a_batch_gets_the_error(bench: Bench, status: int, blame: str) -> None:
    def picky(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise Refuse(status, "thirteen")
        return double(call)

    worker = bench.worker("w", picky)
    bench.route("w", batch=8)
    front = bench.front()
    busy(front, worker)
    requests = [front.send({"X": column(n, n)}) for n in (11, 12, 13)]
    worker.going.set()
    outcomes = [request.wait() for request in requests]
    assert [o["Y"].ravel().tolist() for o in outcomes[:2]] == [[22, 22], [24, 24]]
    assert outcomes[2].blame == blame
    assert outcomes[2].message == "task t: worker w: thirteen"
    assert worker.batches == [1, 6, 2, 2, 2]
    assert bench.engine.metric("jigsaw_refused_total", reason=blame) == 1


def test_what_must_not_run_twice_fails_with_its_batch(bench: Bench) -> None:
    def picky(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise Refuse(500, "thirteen")
        return double(call)

    worker = bench.worker("w", picky)
    bench.route("w", batch=8)
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    busy(front, worker)
    requests = [front.send({"X": column(n)}) for n in (11, 12, 13)]
    worker.going.set()
    assert [request.wait().message for request in requests] == ["task t: worker w: thirteen"] * 3
    assert worker.batches == [1, 3]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "HTTP status 500 without a message"), (b"[]", "without a message"), (b'{"error": 5}', "without a message")],
)
def test_an_error_without_words(bench: Bench, body: bytes, words: str) -> None:
    bench.worker("w", lambda call: message(500, body))
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)})
    assert outcome.blame == "model"
    assert words in outcome.message


def test_the_id_of_the_call_is_not_part_of_the_message(bench: Bench) -> None:
    bench.worker("w", lambda call: bad(400, f"[request id: #{call.number}] unexpected shape"))
    bench.route("w")
    assert bench.front().ask({"X": column(1)}).message == "task t: worker w: unexpected shape"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "Request for unknown model: 'm' is not found"),
        (400, "Request for unknown model: 'm' has no available versions"),
        (503, "Server is not ready"),
        (503, "Exceeds maximum queue size"),
        (400, "Unable to find shared memory region: 'x'"),
    ],
)
@pytest.mark.parametrize("retry", [True, False])
def test_what_was_not_run_is_another_workers_work(bench: Bench, status: int, words: str, retry: bool) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(status, words)

    workers = {"a": bench.worker("a", refuse), "b": bench.worker("b", refuse), "c": bench.worker("c")}
    bench.route("a", "b", "c")
    front = bench.engine.front(specs.spec([specs.task(retry=retry)]))
    for n in range(6):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert len(workers["a"].calls) == len(workers["b"].calls) == 1
    assert not (bench.run_dir / "condemned").exists()


def test_what_was_not_run_is_tried_until_it_is_late(bench: Bench) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(503, "not ready")

    worker = bench.worker("w", refuse)
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)}, timeout_us=500_000)
    assert outcome.blame == "worker"
    assert "none of its 1 workers can be reached; worker w failed: not ready" in outcome.message
    assert 2 <= len(worker.calls) <= 5


def test_a_worker_that_is_not_there_costs_nothing(bench: Bench) -> None:
    worker = bench.worker("b")
    bench.route("gone", "b")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    for n in range(10):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert len(worker.calls) == 10
    assert any("worker gone failed: cannot connect" in line for line in bench.engine.logs)


def test_the_only_worker_is_waited_for_while_it_starts(bench: Bench) -> None:
    bench.route("w")
    request = bench.front().send({"X": column(1)})
    assert not request.ended(0.05)
    bench.worker()
    assert request.wait()["Y"].item() == 2


def test_a_worker_that_started_again_between_two_calls_is_no_failure(bench: Bench) -> None:
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    for n in range(3):
        with Worker(bench.run_dir, "w", double) as worker:
            assert front.ask({"X": column(n)})["Y"].item() == 2 * n
            assert front.ask({"X": column(n)})["Y"].item() == 2 * n
            assert worker.connections == 1
    assert bench.engine.metric("jigsaw_batches_lost_total") == 0


def test_a_worker_that_dies_under_way(bench: Bench) -> None:
    first = bench.worker("a")
    bench.route("a")
    front = bench.front()
    (request,) = busy(front, first)
    waiting = front.send({"X": column(3)})
    bench.worker("b")
    bench.route("a", "b")
    first.kill()
    assert request.wait()["Y"].item() == -2
    assert waiting.wait()["Y"].item() == 6


def test_a_failed_worker_is_tried_again_after_a_pause(bench: Bench) -> None:
    bench.worker("a", once(hang_up))
    other = bench.worker("b")
    bench.route("a", "b")
    front = bench.front()
    deadline = time.monotonic() + 30
    while len(bench.workers[0].calls) < 3:
        assert front.ask({"X": column(1)})["Y"].item() == 2
        assert time.monotonic() < deadline
    assert other.calls


def test_an_answer_byte_by_byte(bench: Bench) -> None:
    worker = bench.worker("w", lambda call: slowly(call.answer(double(call))))
    bench.route("w", batch=8)
    front = bench.front()
    assert front.ask({"X": column(*range(8))})["Y"].ravel().tolist() == [2 * n for n in range(8)]
    assert front.ask({"X": column(1)})["Y"].item() == 2
    assert worker.connections == 1


def test_an_error_byte_by_byte(bench: Bench) -> None:
    bench.worker("w", lambda call: slowly(bad(400, "slow refusal")))
    bench.route("w")
    assert bench.front().ask({"X": column(1)}).message == "task t: worker w: slow refusal"


def test_large_requests_and_answers_in_pieces(bench: Bench) -> None:
    """More than a socket's buffer holds, both ways."""
    kind = ("INT64", (1_000_000,))
    made = specs.task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})
    bench.worker()
    bench.route("w", batch=2)
    front = bench.engine.front(specs.spec([made], {"X": kind}, {"Y": ("t.Y", kind)}))
    array = np.arange(3_000_000).reshape(3, -1)
    assert (front.ask({"X": array})["Y"] == 2 * array).all()


def test_a_worker_that_answers_before_it_has_read_all(bench: Bench) -> None:
    kind = ("INT64", (1_000_000,))
    made = specs.task(inputs={"X": ("inputs.X", kind)})
    bench.route("w")
    front = bench.engine.front(specs.spec([made], {"X": kind}))
    with EarlyWorker(bench.run_dir, "w", double):
        outcome = front.ask({"X": np.zeros((1, 1_000_000), np.int64)})
        assert outcome.message == "task t: worker w: too large"
        assert front.ask({"X": np.zeros((1, 1_000_000), np.int64)}).message == "task t: worker w: too large"


class EarlyWorker(Worker):
    """Refuses requests by their headers."""

    def _serve(self, connection: Any, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            connection.sendall(bad(413, "too large"))
            # What is left stays unread until the other side closes.
            closed = select.poll()
            with contextlib.suppress(ValueError):  # It is closed already.
                closed.register(connection, select.POLLRDHUP)
                closed.poll(1000 * PATIENCE_S)


def switches_of_loops() -> int:
    """How often the loops of this process's engines have gone to sleep; other tests may have left one that is idle."""
    loops = [path.parent for path in Path("/proc/self/task").glob("*/comm") if path.read_text() == "jigsaw\n"]
    assert loops
    words = [(loop / "status").read_text().split() for loop in loops]
    return sum(int(found[found.index("voluntary_ctxt_switches:") + 1]) for found in words)


def test_deadlines_of_calls_that_were_answered_wake_nobody(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=500)]))
    for _ in range(100):
        front.ask({"X": column(5)})
        time.sleep(0.002)
    before = switches_of_loops()
    time.sleep(0.7)
    assert switches_of_loops() - before < 40


# --- workers that hang, and answers that are not their own


def condemned(bench: Bench) -> dict[str, dict[str, Any]]:
    """What was written of workers that are taken out of service."""
    folder = bench.run_dir / "condemned"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_a_worker_that_hangs_is_taken_out_of_service(bench: Bench) -> None:
    hanging, other = bench.worker("a"), bench.worker("b")
    specs.write_route(bench.run_dir, specs.entry("a", slots=2, batch=1))
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=300)]))
    hanging.going.clear()
    requests = front.send_many(2, {"X": column(5)})
    hanging.wait(2)
    bench.route("a", "b", batch=1)
    # All that is under way there is done by the other, which the file tells the controller of.
    assert [request.wait()["Y"].item() for request in requests] == [10, 10]
    assert len(other.calls) == 2
    written = condemned(bench)["a"]
    assert written["worker"] == "a" and written["model"] == "m"
    assert "did not answer a batch of 1 within 300 ms" in written["reason"]
    assert written["inode"] == hanging.path.stat().st_ino
    assert (bench.run_dir / "condemned" / "a.json").stat().st_mode & 0o777 == 0o600
    assert any(line.startswith("error: worker a is taken out of service") for line in bench.engine.logs)
    # Nothing goes there any more, though it would answer now.
    hanging.going.set()
    for n in range(5):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert len(hanging.calls) == 2


def test_what_hangs_is_not_run_again_where_that_is_not_allowed(bench: Bench) -> None:
    hanging, other = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200, retry=False)]))
    hanging.going.clear()
    request = front.send({"X": column(5)})
    hanging.wait(1)
    bench.route("a", "b")
    outcome = request.wait()
    assert outcome.blame == "worker"
    assert "did not answer a batch of 1 within 200 ms" in outcome.message
    assert not other.calls


def test_a_server_in_place_of_a_condemned_one_is_used(bench: Bench) -> None:
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200)]))
    with Worker(bench.run_dir, "w", double) as hanging:
        hanging.going.clear()
        request = front.send({"X": column(5)})
        hanging.wait(1)
        eventually(lambda: bool(condemned(bench)))
        assert not request.ended()
    with Worker(bench.run_dir, "w", double) as fresh:
        assert request.wait()["Y"].item() == 10
        assert front.ask({"X": column(1)})["Y"].item() == 2
        assert len(fresh.calls) == 2


def test_the_routes_deadline_counts_once_the_worker_has_answered(bench: Bench) -> None:
    """A first call may take long; the next one of the same size may not."""
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a", deadline_ms={"1": 100.0, "4": 100.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=60_000)]))
    worker.going.clear()
    first = front.send({"X": column(1)})
    worker.wait(1)
    assert not first.ended(0.4)
    worker.going.set()
    assert first.wait()["Y"].item() == 2
    worker.going.clear()
    second = front.send({"X": column(2)})
    worker.wait(2)
    bench.route("a", "b", deadline_ms={"1": 100.0, "4": 100.0})
    assert second.wait()["Y"].item() == 4
    assert "within 100 ms" in condemned(bench)["a"]["reason"]


def test_a_worker_that_started_again_has_the_time_it_had_at_first(bench: Bench) -> None:
    bench.route("w", deadline_ms={"1": 100.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=60_000)]))
    with Worker(bench.run_dir, "w", double):
        front.ask({"X": column(1)})
    # It is found out to be gone, and to be there again.
    request = front.send({"X": column(2)})
    eventually(lambda: any("cannot connect" in line for line in bench.engine.logs))
    with Worker(bench.run_dir, "w", double) as worker:
        worker.going.clear()
        worker.wait(1)
        assert not request.ended(0.4)
        worker.going.set()
        assert request.wait()["Y"].item() == 4
    assert not condemned(bench)


def other_token(call: Call) -> dict[str, Array]:
    return {**double(call), "JIGSAW_TOKEN": call.token() + 1}


def no_token(call: Call) -> dict[str, Array]:
    return double(call)


def short_token(call: Call) -> dict[str, Array]:
    return {**double(call), "JIGSAW_TOKEN": call.token()[:-1]}


def one_wrong(call: Call) -> dict[str, Array]:
    token = call.token()
    token[-1] = 7
    return {**double(call), "JIGSAW_TOKEN": token}


@pytest.mark.parametrize("answer", [other_token, no_token, short_token, one_wrong])
def test_an_answer_to_another_call_is_nobodys(bench: Bench, answer: Handler) -> None:
    def right(call: Call) -> dict[str, Array]:
        return {**double(call), "JIGSAW_TOKEN": call.token()}

    worker, other = bench.worker("a", answer), bench.worker("b", right)
    bench.route("a", tokens=1)
    front = bench.front()
    worker.going.clear()
    request = front.send({"X": column(1, 2)})
    worker.wait(1)
    bench.route("a", "b", tokens=1)
    worker.going.set()
    assert request.wait()["Y"].tolist() == [[2], [4]]
    assert condemned(bench)["a"]["reason"] == "model m gave the answer to another call"
    for n in range(3):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert (len(worker.calls), len(other.calls)) == (1, 4)


def another_size(call: Call) -> dict[str, Array]:
    return {"Y": np.zeros((3, 1), np.int64), "JIGSAW_TOKEN": call.token() + 1}


def another_type(call: Call) -> dict[str, Array]:
    return {"Y": np.zeros((2, 1), np.float32), "JIGSAW_TOKEN": call.token() + 1}


@pytest.mark.parametrize("answer", [another_size, another_type])
def test_an_answer_to_another_call_is_known_whatever_its_shape(bench: Bench, answer: Handler) -> None:
    bench.worker("a", answer)
    bench.worker("b", lambda call: {**double(call), "JIGSAW_TOKEN": call.token()})
    bench.route("a", tokens=1)
    front = bench.front()
    bench.workers[0].going.clear()
    request = front.send({"X": column(1, 2)})
    bench.workers[0].wait(1)
    bench.route("a", "b", tokens=1)
    bench.workers[0].going.set()
    assert request.wait()["Y"].tolist() == [[2], [4]]
    assert set(condemned(bench)) == {"a"}


def test_a_wrong_shape_of_its_own_answer_is_the_models_fault(bench: Bench) -> None:
    bench.worker("w", lambda call: {"Y": np.zeros((3, 1), np.int64), "JIGSAW_TOKEN": call.token()})
    bench.route("w", tokens=1)
    outcome = bench.front().ask({"X": column(1, 2)})
    assert outcome.blame == "model"
    assert outcome.message == "task t: worker w: output Y has shape [3, 1] where [2, 1] was declared"
    assert not condemned(bench)


@pytest.mark.parametrize("wrong", [None, 0, 2])
def test_each_member_of_a_chain_has_a_token(bench: Bench, wrong: int | None) -> None:
    def chain(call: Call) -> dict[str, Array]:
        tokens = {f"JIGSAW_TOKEN.{n}": call.token() + (n == wrong) for n in range(3)}
        return {**double(call), **tokens}

    worker = bench.worker("w", chain)
    bench.route("w", tokens=3)
    outcome = bench.front(slo_ms=500).ask({"X": column(1)})
    assert set(worker.calls[0].outputs) == {"Y", "JIGSAW_TOKEN.0", "JIGSAW_TOKEN.1", "JIGSAW_TOKEN.2"}
    assert (outcome.failure is None) == (wrong is None) == (not condemned(bench))


OF_MODEL = "Failed to process the request(s) for model instance 'm_0_0', message: "


@pytest.mark.parametrize(
    "words",
    [
        "ValueError: invalid literal for int(): 'Stub process'",
        OF_MODEL + "KeyError: Stub process 'm_0_0' is not healthy.",
        "KeyError: Request for unknown model: 'm'",
        "KeyError: Unable to find shared memory region: 'x'",
    ],
)
def test_a_models_message_may_quote_anything(bench: Bench, words: str) -> None:
    def quote(call: Call) -> Answer:
        raise Refuse(500, words)

    worker = bench.worker("w", quote)
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)})
    assert (outcome.blame, outcome.message) == ("model", f"task t: worker w: {words}")
    assert not condemned(bench)
    assert len(worker.calls) == 1


@pytest.mark.parametrize("words", ["Stub process 'm_0_0' is not healthy.", OF_MODEL + "Stub process is not healthy."])
def test_a_dead_stub_process_is_reported(bench: Bench, words: str) -> None:
    def dead(call: Call) -> Answer:
        raise Refuse(500, words)

    bench.worker("a", dead)
    bench.route("a")
    front = bench.front()
    request = front.send({"X": column(1)})
    bench.worker("b")
    bench.route("a", "b")
    assert request.wait()["Y"].item() == 2
    assert condemned(bench)["a"]["reason"] == words


def test_whatever_is_under_way_at_a_condemned_server_goes_elsewhere(bench: Bench) -> None:
    """Calls that wait, idle connections, and calls of other models of the same server."""
    worker, other = bench.worker("a"), bench.worker("b")
    for name in "tu":
        specs.write_route(bench.run_dir, specs.entry("a", model=name, slots=3, batch=1, tokens=1), name=name)
    fronts = [
        bench.engine.front(specs.spec([specs.task(name)], outputs={"Y": (f"{name}.Y", specs.ONE)})) for name in "tu"
    ]
    worker.going.clear()
    held = [front.send({"X": column(n)}) for n in range(2) for front in fronts]
    worker.wait(4)
    other.handler = lambda call: {**double(call), "JIGSAW_TOKEN": call.token()}
    for name in "tu":
        entries = [specs.entry(w, model=name, slots=3, batch=1, tokens=1) for w in "ab"]
        specs.write_route(bench.run_dir, *entries, name=name)
    worker.handler = lambda call: other_token(call) if call.inputs["X"].item() == 0 else hold(worker)
    worker.going.set()
    outcomes = [request.wait() for request in held]
    assert [outcome["Y"].item() for outcome in outcomes] == [0, 0, 2, 2]
    assert set(condemned(bench)) == {"a"}
    worker.kill()


def hold(worker: Worker) -> Answer:
    """Does not answer before the worker ends."""
    while worker._listener.fileno() >= 0:
        time.sleep(0.005)
    raise HangUp


def test_a_front_waits_for_what_is_under_way(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    front = bench.front()
    worker.going.clear()
    requests = front.send_many(10, {"X": column(4)})
    worker.wait(1)
    closing = threading.Thread(target=front.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive()
    worker.going.set()
    closing.join()
    assert all(request.ended() for request in requests)
    assert [request.wait()["Y"].item() for request in requests] == [8] * 10


def test_fronts_come_and_go_under_load(bench: Bench) -> None:
    """As when a new generation takes the place of one that still has requests inside."""
    bench.worker()
    bench.route("w", batch=3, slots=2)
    front = bench.front()
    requests = []
    for turn in range(20):
        requests += [(turn, request) for request in front.send_many(20, {"X": column(turn)})]
        closing = threading.Thread(target=front.close)
        front = bench.front()
        closing.start()
        closing.join()
    for turn, request in requests:
        assert request.wait()["Y"].item() == 2 * turn


def test_many_threads_send_at_once(bench: Bench) -> None:
    for name in "ab":
        bench.worker(name)
    bench.route("a", "b", batch=4, slots=2)
    front = bench.front()
    wrong: list[object] = []

    def client(number: int) -> None:
        for n in range(40):
            value = 1000 * number + n
            found = front.ask({"X": column(value, value + 1)}, id=f"{number}/{n}")
            if found.failure or found["Y"].ravel().tolist() != [2 * value, 2 * value + 2]:
                wrong.append(found)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_threads_and_workers_that_fail(bench: Bench) -> None:
    """Every request is answered once, and rightly or not at all."""
    rng = np.random.default_rng(3)
    lock = threading.Lock()

    def shaky(call: Call) -> Answer:
        with lock:
            luck = rng.random()
        if luck < 0.05:
            raise HangUp
        if luck < 0.1:
            return half(call)
        if luck < 0.15:
            raise Refuse(500, "bad luck")
        if luck < 0.2:
            raise Refuse(503, "not now")
        return double(call)

    for name in "abc":
        bench.worker(name, shaky)
    bench.route("a", "b", "c", batch=4, slots=2)
    front = bench.front()
    answered: list[bool] = []

    def client(number: int) -> None:
        for n in range(25):
            value = 1000 * number + n
            outcome = front.ask({"X": column(value, value + 1)})
            if outcome.failure is None:
                assert outcome["Y"].ravel().tolist() == [2 * value, 2 * value + 2]
            answered.append(outcome.failure is None)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 200
    assert sum(answered) > 100


def test_an_engine_ends_with_idle_connections(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", slots=4, batch=1)
    front = bench.front()
    for request in front.send_many(20, {"X": column(1)}):
        request.wait()
    assert 1 <= worker.connections <= 4


def test_a_worker_that_leaves_the_route_loses_its_connections(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a")
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b")
    front.ask({"X": column(1)})
    eventually(lambda: not any(thread.is_alive() for thread in worker._threads[1:]))
