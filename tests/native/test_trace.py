"""Traces: one line of JSON for each task of a traced request."""

import json
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.runtime.trace import Call as TracedCall
from jigsaw_triton.runtime.trace import Hop
from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.worker import Answer, Call, HangUp, Refuse


def hops(run_dir: Path, name: str = "t") -> list[dict[str, Any]]:
    path = run_dir / "traces" / "gateway" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_request_with_an_id_is_traced(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=2, variant="v")
    front = bench.front()
    front.ask({"X": column(1)})
    front.ask({"X": column(1, 2, 3)}, id='seven\n"7"')
    (hop,) = hops(bench.run_dir)
    assert hop.keys() == Hop.__dataclass_fields__.keys()
    assert (hop["request"], hop["graph"], hop["task"], hop["route"]) == ('seven\n"7"', "g", "t", "t")
    assert (hop["outcome"], hop["message"]) == ("answered", "")
    assert hop["waited_ms"] >= 0 and hop["returned_ms"] > 0
    assert hop["calls"][0].keys() == TracedCall.__dataclass_fields__.keys()
    assert [(c["worker"], c["model"], c["variant"], c["items"], c["batch"]) for c in hop["calls"]] == [
        ("w", "m", "v", 2, 2),
        ("w", "m", "v", 1, 1),
    ]
    assert all(c["outcome"] == "answered" and not c["again"] for c in hop["calls"])
    assert [c["number"] for c in hop["calls"]] == [call.number for call in worker.calls[1:]]
    assert [call.ids for call in worker.calls] == [(), ('seven\n"7"',), ('seven\n"7"',)]
    assert (bench.run_dir / "traces" / "gateway" / "t.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("refusal", "outcome", "call"),
    [
        (Refuse(400, "not so"), "request", "refused"),
        (Refuse(500, "broken"), "model", "refused"),
        (HangUp(), "worker", "failed"),
    ],
)
def test_a_failure_is_traced(bench: Bench, refusal: Exception, outcome: str, call: str) -> None:
    def refuse(_: Call) -> Answer:
        raise refusal

    bench.worker(handler=refuse)
    bench.route("w")
    answer = bench.front().ask({"X": column(1)}, id="7")
    (hop,) = hops(bench.run_dir)
    assert hop["outcome"] == outcome
    assert hop["message"] == answer.message
    assert [c["outcome"] for c in hop["calls"]] == [call] * len(hop["calls"])
    assert [c["again"] for c in hop["calls"]] == [False, True][: len(hop["calls"])]


def test_a_refused_request_is_traced(bench: Bench) -> None:
    bench.route()
    bench.front(slo_ms=30).ask({"X": column(1)}, id="7")
    (hop,) = hops(bench.run_dir)
    assert hop["outcome"] == "worker"
    assert hop["calls"] == []


def test_each_task_of_a_graph_has_a_hop(bench: Bench) -> None:
    bench.worker()
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    for name in "ab":
        bench.route("w", name=name)
    front = bench.engine.front(specs.spec(tasks, outputs={"Y": ("b.Y", specs.ONE)}))
    front.ask({"X": column(1)}, id="7")
    assert [hop["request"] for name in "ab" for hop in hops(bench.run_dir, name)] == ["7", "7"]


def test_only_a_sample_of_many_requests_is_traced(bench: Bench) -> None:
    bench.worker()
    bench.route("w", batch=64)
    front = bench.front()
    requests = [front.send({"X": column(n)}, id=str(n)) for n in range(400)]
    for request in requests:
        request.wait()
    assert 1 <= len(hops(bench.run_dir)) <= 200


def test_an_id_that_is_too_long_is_not_traced(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)}, id="x" * 1000)
    front.ask({"X": column(1)}, id="")
    assert not hops(bench.run_dir)
    assert [call.ids for call in worker.calls] == [(), ()]


def test_a_full_file_is_rotated(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    path = bench.run_dir / "traces" / "gateway" / "t.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("x" * 256 * 1024)
    front.ask({"X": column(1)}, id="7")
    front.ask({"X": column(1)}, id="8")
    assert len(hops(bench.run_dir)) == 1
    assert path.with_name("t.jsonl.1").stat().st_size > 256 * 1024


def test_a_folder_that_cannot_be_made_fails_no_request(bench: Bench) -> None:
    (bench.run_dir / "traces").write_text("no folder")
    bench.worker()
    bench.route("w")
    assert bench.front().ask({"X": column(1)}, id="7")["Y"].item() == 2


def test_the_calls_in_a_trace_are_limited(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    bench.front().ask({"X": column(*range(400))}, id="7")
    (hop,) = hops(bench.run_dir)
    assert len(worker.calls) == 400
    assert len(hop["calls"]) == 256
