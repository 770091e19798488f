"""Requests that are sampled for OpenTelemetry: their contexts, their records, and the context that workers get."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from jigsaw_triton.runtime.trace import (
    SHARE_FILE,
    Hop,
    Response,
    TraceContext,
    hop_from_json,
    response_from_json,
)
from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Engine
from tests.native.worker import Answer, Call, Refuse
from tests.waiting import eventually

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parent(flags: str = "01", version: str = "00", more: str = "") -> str:
    return f"{version}-{TRACE}-{SPAN}-{flags}{more}"


@contextmanager
def sampling(run_dir: Path, share: str) -> Iterator[Bench]:
    """An engine that samples a share of the requests from its start on."""
    (run_dir / SHARE_FILE).write_text(share)
    with Engine(run_dir) as engine, ExitStack() as stack:
        bench = Bench(engine, stack)
        bench.worker()
        bench.route("w")
        yield bench
        engine.close_fronts()


@pytest.fixture
def sampled(run_dir: Path) -> Iterator[Bench]:
    """An engine that samples all requests without a context."""
    with sampling(run_dir, "1.0\n") as bench:
        yield bench


@pytest.fixture
def asked(run_dir: Path) -> Iterator[Bench]:
    """An engine that samples only the requests whose clients ask for it."""
    with sampling(run_dir, "0.0\n") as bench:
        yield bench


def hops(bench: Bench, name: str = "t") -> list[Hop]:
    path = bench.run_dir / "traces" / "gateway" / f"{name}.jsonl"
    return [hop_from_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def responses(bench: Bench) -> list[Response]:
    path = bench.run_dir / "traces" / "gateway" / "requests" / "g.jsonl"
    return [response_from_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def context(record: Hop | Response) -> TraceContext:
    assert record.trace is not None
    return record.trace


def test_a_sampled_request_has_records_of_its_tasks_and_its_response(sampled: Bench) -> None:
    sampled.front().ask({"X": column(1, 2)})
    (hop,), (response,) = hops(sampled), responses(sampled)
    found = context(response)
    assert context(hop) == found
    assert re.fullmatch("[0-9a-f]{32}", found.id)
    assert re.fullmatch("[0-9a-f]{16}", found.span)
    assert found.parent == ""
    assert (hop.request, response.request) == (found.id, "")
    assert (response.graph, response.model, response.items) == ("g", "front", 2)
    assert (response.outcome, response.message) == ("answered", "")
    assert response.took_ms >= hop.returned_ms > 0
    assert response.arrived_s <= hop.taken_s + 1e-5
    assert not hop.partial
    (call,), (seen,) = hop.calls, sampled.workers[0].calls
    assert seen.traceparent == f"00-{found.id}-{call.span}-01"
    assert seen.ids == (found.id,)
    assert sampled.engine.metric("jigsaw_traces_total", outcome="recorded") == 1


def test_the_id_of_the_client_is_kept(sampled: Bench) -> None:
    sampled.front().ask({"X": column(1)}, id="7")
    sampled.front().ask({"X": column(1)}, id="x" * 1000)
    (short, long), names = hops(sampled), [response.request for response in responses(sampled)]
    assert (short.request, long.request) == ("7", context(long).id)
    assert names == ["7", "x" * 1000]


def test_a_client_decides_for_its_request(sampled: Bench) -> None:
    front = sampled.front()
    front.ask({"X": column(1)}, traceparent=parent("00"))
    assert (hops(sampled), responses(sampled)) == ([], [])
    front.ask({"X": column(1)}, traceparent=parent("01"))
    found = context(responses(sampled)[0])
    assert (found.id, found.parent) == (TRACE, SPAN)
    assert [bool(call.traceparent) for call in sampled.workers[0].calls] == [False, True]


@pytest.mark.parametrize("text", [parent(), parent("ff"), parent("03"), parent(version="01"), parent("01", "cc", "-x")])
def test_a_context_of_any_version_is_continued(asked: Bench, text: str) -> None:
    asked.front().ask({"X": column(1)}, traceparent=text)
    assert context(hops(asked)[0]).id == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        parent(version="ff"),
        parent(more="-x"),
        parent("01", "01", "x"),
        parent().upper(),
        parent().replace("a", "g"),
        parent().replace("-", "_"),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        " " + parent(),
        "\0" * 55,
        "é" * 55,
    ],
)
def test_what_is_not_a_context_is_ignored(asked: Bench, text: str) -> None:
    assert asked.front().ask({"X": column(1)}, traceparent=text)["Y"].item() == 2
    assert (hops(asked), responses(asked)) == ([], [])


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("a=1,b@c=2", "a=1,b@c=2"),
        ("a=" + "x" * 510, "a=" + "x" * 510),
        ("a=" + "x" * 511, ""),
        ("a=1\r\nX: 1", ""),
        ("a=\u00e9", ""),
    ],
)
def test_the_state_of_a_trace_is_passed_on_as_it_is_or_dropped(asked: Bench, given: str, passed: str) -> None:
    asked.front().ask({"X": column(1)}, traceparent=parent(), tracestate=given)
    records: list[Hop | Response] = [*hops(asked), *responses(asked)]
    assert [context(record).state for record in records] == [passed, passed]
    assert [call.tracestate for call in asked.workers[0].calls] == [passed]


def test_a_state_without_a_context_is_ignored(sampled: Bench) -> None:
    sampled.front().ask({"X": column(1)}, tracestate="a=1")
    assert context(responses(sampled)[0]).state == ""
    assert sampled.workers[0].calls[0].tracestate == ""


def test_requests_in_one_span_of_a_client_have_spans_of_their_own(asked: Bench) -> None:
    requests = asked.front().send_many(20, {"X": column(1)}, traceparent=parent())
    for request in requests:
        request.wait()
    found = [context(response) for response in responses(asked)]
    assert {(one.id, one.parent) for one in found} == {(TRACE, SPAN)}
    assert len({one.span for one in found}) == 20


def test_a_worker_gets_the_context_of_one_request_of_a_batch(asked: Bench) -> None:
    worker, front = asked.workers[0], asked.front()
    worker.answering.clear()
    first = front.send({"X": column(0)})
    worker.wait(1)
    batch = [front.send({"X": column(n)}, traceparent=parent()) for n in range(1, 4)]
    worker.answering.set()
    for request in (first, *batch):
        request.wait()
    found = [hop.calls[0] for hop in hops(asked)]
    assert [call.batch for call in found] == [3, 3, 3]
    assert len({call.span for call in found}) == 3
    assert worker.calls[1].traceparent.split("-")[2] in {call.span for call in found}


def test_the_items_of_a_batch_belong_to_one_request(run_dir: Path) -> None:
    with sampling(run_dir, "1") as bench:
        bench.front(split=True).ask({"X": column(1, 2, 3)})
        (response,) = responses(bench)
        assert response.items == 3
        assert {context(hop) for hop in hops(bench)} == {context(response)}


def test_the_fronts_of_a_pipeline_choose_the_same_requests(run_dir: Path) -> None:
    """They get the arrival of the whole request."""
    with sampling(run_dir, "0.5") as bench:
        bench.route("w", name="u")
        begin = time.monotonic_ns() - 10_000_000
        fronts = [
            bench.engine.front(
                specs.spec([specs.task(name)], outputs={"Y": (f"{name}.Y", specs.ONE)}, clock=True), model=name
            )
            for name in "tu"
        ]
        for n in range(200):
            for front in fronts:
                front.ask({"X": column(n)}, arrival=begin + n)
        chosen = [{context(hop) for hop in hops(bench, name)} for name in "tu"]
        assert chosen[0] == chosen[1]
        assert 50 <= len(chosen[0]) <= 150
        assert all(hop.partial for hop in hops(bench))
        assert responses(bench) == []


@pytest.mark.parametrize(("status", "outcome"), [(400, "request"), (500, "model")])
def test_a_failure_is_recorded(run_dir: Path, status: int, outcome: str) -> None:
    def refuse(_: Call) -> Answer:
        raise Refuse(status, "not so")

    with sampling(run_dir, "1") as bench:
        bench.workers[0].handler = refuse
        answer = bench.front().ask({"X": column(1)})
        (response,), (hop,) = responses(bench), hops(bench)
        assert (response.outcome, response.message) == (outcome, answer.message)
        assert (hop.outcome, [call.outcome for call in hop.calls]) == (outcome, ["refused"])


def test_a_request_that_reaches_no_task_is_recorded(sampled: Bench) -> None:
    front = sampled.front()
    answer = front.send_raw(1, [{"dtype": "FP32", "shape": [1, 1], "size": 4}], bytes(4))[0].wait()
    (response,) = responses(sampled)
    assert (response.outcome, response.message) == ("request", answer.message)
    assert hops(sampled) == []


@pytest.mark.slow
def test_the_share_of_the_requests_may_change(run_dir: Path) -> None:
    path = run_dir / SHARE_FILE
    with sampling(run_dir, "1") as bench:
        front = bench.front()

        def recorded() -> bool:
            before = len(responses(bench))
            front.ask({"X": column(1)}, traceparent=parent())
            return len(responses(bench)) > before

        assert recorded()
        for text in (None, "1", "-1", "1", "2", "1", "x", "1", ""):
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
            eventually(lambda text=text: recorded() == (text == "1"))  # type: ignore[misc]


def test_without_a_share_no_request_is_sampled(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    bench.front().ask({"X": column(1)}, traceparent=parent())
    assert (hops(bench), responses(bench)) == ([], [])
    assert bench.engine.metric("jigsaw_traces_total") == 0


def test_a_share_of_many_requests_is_sampled(run_dir: Path) -> None:
    with sampling(run_dir, "0.1") as bench:
        bench.route("w", batch=64)
        front = bench.front()
        for request in front.send_many(2000, {"X": column(1)}):
            request.wait()
        assert 100 <= len(responses(bench)) <= 320
        assert len({context(response).id for response in responses(bench)}) == len(responses(bench))


def test_requests_beyond_the_limit_are_dropped_and_counted(asked: Bench) -> None:
    asked.route("w", batch=64)
    front = asked.front()
    for request in front.send_many(3000, {"X": column(1)}, traceparent=parent()):
        request.wait()
    recorded, dropped = (asked.engine.metric("jigsaw_traces_total", outcome=name) for name in ("recorded", "dropped"))
    assert recorded + dropped == 3000
    assert recorded >= 500


def test_a_folder_that_cannot_be_made_fails_no_request(sampled: Bench) -> None:
    (sampled.run_dir / "traces").write_text("no folder")
    assert sampled.front().ask({"X": column(1)})["Y"].item() == 2


def test_ids_are_written_as_json(sampled: Bench) -> None:
    sampled.front().ask({"X": column(1)}, id='"\n\\')
    path = sampled.run_dir / "traces" / "gateway" / "requests" / "g.jsonl"
    assert json.loads(path.read_text())["request"] == '"\n\\'
