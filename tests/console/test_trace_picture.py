from dataclasses import replace
from xml.etree import ElementTree

import pytest

from jigsaw_triton.console.trace import Stay, Trace
from jigsaw_triton.console.trace_picture import MAX_CALLS, Bar, bars, draw_svg, draw_text
from jigsaw_triton.gpus.board import plain
from tests.console.test_trace import CALL, FIRST, RUN, SECOND

TRACE = Trace("g", "7", (Stay(FIRST, ()), Stay(SECOND, ((RUN,),))))


def test_each_wait_stay_and_batch_is_a_bar() -> None:
    drawn = [(bar.depth, bar.label, bar.start_ms, bar.end_ms, bar.kind) for bar in bars(TRACE)]
    assert drawn == [
        (0, "a: queue", 0.0, 10.0, "wait"),
        (0, "a: gateway", 10.0, 30.0, "stay"),
        (0, "b: queue", 33.0, 35.0, "wait"),
        (0, "b: gateway", 35.0, 50.0, "stay"),
        (1, "v on w, 2 of 3 items", 36.0, 44.0, "call"),
    ]
    assert bars(TRACE)[-1].runs == ((38.0, 42.0),)


def test_a_python_step_is_drawn_like_a_task() -> None:
    call = replace(CALL, worker="steps-g", variant="", items=1, batch=1)
    hop = replace(SECOND, waited_ms=0.0, calls=(call,))
    labels = [bar.label for bar in bars(Trace("g", "7", (Stay(hop, ((),)),)))]
    assert labels == ["b: gateway", "steps-g, 1 of 1 items"]


def test_failures_and_retries_are_marked() -> None:
    calls = (replace(CALL, outcome="failed"), replace(CALL, sent_ms=9.0, ended_ms=12.0, again=True))
    hop = replace(SECOND, outcome="model", message="task b: <seven>", calls=calls)
    trace = Trace("g", "7", (Stay(hop, ((), ())),))
    kinds = {bar.label: bar.kind for bar in bars(trace)}
    assert kinds["b: model"] == "failed"
    assert kinds["v on w, 2 of 3 items, failed"] == "failed"
    assert kinds["v on w, 2 of 3 items, retry"] == "call"
    assert "model: task b: <seven>" in plain(draw_text(trace))
    assert "task b: &lt;seven&gt;" in draw_svg(trace)


def test_batches_above_the_maximum_share_one_bar() -> None:
    calls = tuple(replace(CALL, sent_ms=float(n), ended_ms=n + 2.0) for n in range(MAX_CALLS + 8))
    trace = Trace("g", "7", (Stay(replace(SECOND, waited_ms=0.0, calls=calls), tuple(() for _ in calls)),))
    *shown, rest = bars(trace)
    assert len(shown) == MAX_CALLS + 1
    assert rest == Bar("b", 1, "8 more batches", MAX_CALLS, MAX_CALLS + 9.0, "call")


def test_the_terminal_picture_shows_when_models_ran() -> None:
    lines = plain(draw_text(TRACE, width=96)).splitlines()
    assert lines[0] == "g, request 7: 50.0 ms, answered"
    (call,) = (line for line in lines if "v on w" in line)
    assert call.split()[:6] == ["v", "on", "w,", "2", "of", "3"]
    assert call.split()[7:9] == ["36.0", "8.0"]
    assert set(call.split()[9]) == {"▓", "█"}
    assert all(len(line) <= 96 for line in lines)


@pytest.mark.parametrize("total_ms", [0.003, 0.7, 12.0, 99_000.0])
def test_the_svg_is_valid_xml_at_any_scale(total_ms: float) -> None:
    hop = replace(FIRST, waited_ms=0.0, returned_ms=total_ms, request='<"7">')
    root = ElementTree.fromstring(draw_svg(Trace("g", '<"7">', (Stay(hop, ()),))))
    ticks = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.get("text-anchor") == "middle"]
    assert 2 <= len(ticks) <= 9
    assert ticks[0] == "0 ms"
