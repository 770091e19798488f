import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jigsaw_triton.console.trace import MAX_GAP_S, Trace, read_traces
from jigsaw_triton.runtime.trace import FOLDER, GATEWAY, WORKERS, Call, Hop, Run

CALL = Call("w", "g.b.v.g1", "v", 2, 3, 1.0, 9.0, "answered", number=2**48)
FIRST = Hop("7", "g", "a", "g.a.g1", 1000.010, 10.0, 20.0, "answered", "", ())
SECOND = Hop("7", "g", "b", "g.b.g1", 1000.035, 2.0, 15.0, "answered", "", (CALL,))
RUN = Run(("7", "8"), (2**48 - 1, 2**48), "w", "g.b.v.g1", 1000.038, 4.0, 3)


def write(run_dir: Path, *records: Hop | Run, suffix: str = "") -> None:
    for record in records:
        if isinstance(record, Hop):
            path = run_dir / FOLDER / GATEWAY / f"{record.route}.jsonl{suffix}"
        else:
            path = run_dir / FOLDER / WORKERS / record.worker / f"{record.model}_0.jsonl{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")


def tasks(traces: tuple[Trace, ...]) -> list[list[str]]:
    return [[stay.hop.task for stay in trace.stays] for trace in traces]


def test_a_trace_is_assembled_from_the_hops_of_a_request(tmp_path: Path) -> None:
    write(tmp_path, SECOND, FIRST, RUN)
    (trace,) = read_traces(tmp_path, "g")
    assert (trace.request, trace.outcome) == ("7", "answered")
    assert trace.total_ms == pytest.approx(50.0)
    document = trace.to_json()
    assert document["began_at"] == "1970-01-01T00:16:40.000+00:00"
    first, second = document["hops"]
    assert (first["arrived_ms"], first["taken_ms"], first["returned_ms"]) == (0.0, 10.0, 30.0)
    assert (second["arrived_ms"], second["returned_ms"]) == (33.0, 50.0)
    (call,) = second["calls"]
    assert (call["sent_ms"], call["ended_ms"], call["items"], call["batch"]) == (36.0, 44.0, 2, 3)
    assert call["runs"] == [{"model": "g.b.v.g1", "began_ms": 38.0, "took_ms": 4.0, "items": 3}]
    json.dumps(document)


def test_a_call_of_a_chain_has_a_run_of_each_model(tmp_path: Path) -> None:
    call = replace(CALL, model="g.a~b.u~v.g3", variant="u~v")
    hop = replace(SECOND, task="a~b", route="g.a~b.g3", calls=(call,))
    first, second = replace(RUN, model="g.a.u.g1"), replace(RUN, model="g.b.v.g2", began_s=1000.040)
    write(tmp_path, hop, second, first)
    ((stay,),) = (trace.stays for trace in read_traces(tmp_path, "g"))
    assert stay.runs == ((first, second),)


@pytest.mark.parametrize("run", [replace(RUN, tokens=(1,)), replace(RUN, worker="x")], ids=["call", "worker"])
def test_runs_of_other_calls_are_left_out(tmp_path: Path, run: Run) -> None:
    write(tmp_path, SECOND, run)
    ((stay,),) = (trace.stays for trace in read_traces(tmp_path, "g"))
    assert stay.runs == ((),)


def test_a_python_step_is_a_hop_like_a_task(tmp_path: Path) -> None:
    call = replace(CALL, worker="steps-g", model="g.b.g1", variant="", items=1, batch=1)
    run = replace(RUN, worker="steps-g", model="g.b.g1")
    write(tmp_path, replace(SECOND, calls=(call,)), run)
    ((stay,),) = (trace.stays for trace in read_traces(tmp_path, "g"))
    assert stay.runs == ((run,),)


def test_requests_with_the_same_id_are_separated(tmp_path: Path) -> None:
    """The requests follow each other at once or after a long time. Those of one client's batch share a trace."""
    later = [replace(hop, taken_s=hop.taken_s + 0.050) for hop in (FIRST, SECOND)]
    much_later = replace(SECOND, taken_s=SECOND.taken_s + 2 * MAX_GAP_S)
    write(tmp_path, FIRST, SECOND, *later, much_later)
    assert tasks(read_traces(tmp_path, "g", "7")) == [["a", "b"], ["a", "b"], ["b"]]
    beside = replace(FIRST, request="8"), replace(FIRST, request="8", taken_s=FIRST.taken_s + 0.005)
    write(tmp_path, *beside)
    assert tasks(read_traces(tmp_path, "g", "8")) == [["a", "a"]]


def test_only_the_given_graph_and_request_are_read(tmp_path: Path) -> None:
    write(tmp_path, FIRST, replace(FIRST, request="8", taken_s=900.0), replace(FIRST, graph="g.a", route="g.a.x.g1"))
    assert [trace.request for trace in read_traces(tmp_path, "g")] == ["8", "7"]
    assert [trace.request for trace in read_traces(tmp_path, "g", "7")] == ["7"]
    assert read_traces(tmp_path, "other") == ()


def test_rotated_files_are_read_and_lines_that_are_broken_skipped(tmp_path: Path) -> None:
    write(tmp_path, FIRST, suffix=".1")
    write(tmp_path, replace(SECOND, route="g.a.g1"))
    path = tmp_path / FOLDER / GATEWAY / "g.a.g1.jsonl"
    path.write_bytes(b'{"request": "\xff"}\n' + path.read_bytes() + b'{"request": "9", "gra')
    assert tasks(read_traces(tmp_path, "g")) == [["a", "b"]]


def test_the_first_failure_is_the_outcome(tmp_path: Path) -> None:
    write(tmp_path, FIRST, replace(SECOND, outcome="late", message="overloaded", calls=()))
    (trace,) = read_traces(tmp_path, "g")
    assert trace.outcome == "late"
