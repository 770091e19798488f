"""Spans of a sampled request."""

from collections.abc import Callable
from itertools import count

import pytest

from jigsaw_triton.console.otlp.spans import Kind, Sampled, Span, spans
from tests.console.otlp.records import BEGAN_S, CONTEXT, call, hop, response, run


def ids() -> Callable[[], bytes]:
    numbers = count(1000)
    return lambda: next(numbers).to_bytes(8, "big")


def tree(found: list[Span]) -> list[tuple[int, str, Kind, str]]:
    """Depth, name, kind and server of each span, whose parent must come before it."""
    depths: dict[bytes, int] = {}
    for span in found:
        assert span.id not in depths
        depths[span.id] = depths.get(span.parent, -1) + 1
    return [(depths[span.id], span.name, span.kind, span.server) for span in found]


def times(span: Span) -> tuple[float, float]:
    """Start and end in milliseconds since the arrival of the request."""
    return round(span.start_ns / 1e6 - 1000 * BEGAN_S, 2), round(span.end_ns / 1e6 - 1000 * BEGAN_S, 2)


def test_a_request_becomes_a_tree_of_spans() -> None:
    found = spans(Sampled(CONTEXT, response(), [hop(call(7))], {("w", 7): [run(7)]}), ids())
    assert tree(found) == [
        (0, "infer g", Kind.SERVER, "gateway"),
        (1, "detect", Kind.INTERNAL, "gateway"),
        (2, "queue detect", Kind.INTERNAL, "gateway"),
        (2, "call detect", Kind.CLIENT, "gateway"),
        (3, "serve detect", Kind.SERVER, "w"),
        (4, "execute detect", Kind.INTERNAL, "w"),
    ]
    assert [times(span) for span in found] == [(0, 20), (2, 17), (2, 5), (5, 15), (6, 14), (6, 14)]
    assert {(span.trace.hex(), span.state) for span in found} == {(CONTEXT.id, "a=1")}
    root, _, _, client, server, _ = found
    assert (root.id.hex(), root.parent.hex(), root.remote) == (CONTEXT.span, CONTEXT.parent, True)
    assert (client.id, client.remote, server.remote) == ((7).to_bytes(8, "big"), False, True)
    assert root.attributes == {"jigsaw.graph": "g", "jigsaw.request.id": "7", "jigsaw.model": "g", "jigsaw.items": 1}
    assert (client.attributes["server.address"], client.attributes["jigsaw.batch.size"]) == ("w.sock", 4)
    assert not [span for span in found if span.error is not None or "error.type" in span.attributes]


def test_each_call_and_each_model_of_a_chain_has_a_span() -> None:
    runs = {("w", 8): [run(8, began_ms=8, took_ms=2, model="first"), run(8, began_ms=11, took_ms=3, model="second")]}
    lost = call(7, outcome="failed", ended_ms=2.0, worker="dead")
    again = call(8, again=True, sent_ms=2.0)
    found = spans(Sampled(CONTEXT, response(), [hop(lost, again)], runs), ids())
    failed, repeated = (span for span in found if span.kind is Kind.CLIENT)
    assert (failed.attributes["error.type"], failed.error) == ("failed", "the worker failed the batch")
    assert (repeated.attributes["http.request.resend_count"], repeated.error) == (1, None)
    models = [span.attributes["jigsaw.model"] for span in found if span.name == "execute detect"]
    assert models == ["first", "second"]
    assert [times(span) for span in found if span.name == "serve detect"] == [(8, 14)]


@pytest.mark.parametrize(("ahead_ms", "began"), [(0, (6, 14)), (1000, (7, 15)), (-1000, (5, 13))])
def test_the_clock_of_another_machine_moves_its_spans_as_a_whole(ahead_ms: float, began: tuple[float, float]) -> None:
    runs = [run(7, began_ms=6 + ahead_ms, took_ms=3), run(7, began_ms=9 + ahead_ms, took_ms=5)]
    found = spans(Sampled(CONTEXT, response(), [hop(call(7))], {("w", 7): runs}), ids())
    (serve, first, second) = (times(span) for span in found if span.server == "w")
    middle = began[0] + 3
    assert (serve, first, second) == (began, (began[0], middle), (middle, began[1]))


def test_a_failure_is_the_status_of_the_request_and_of_its_task() -> None:
    late = hop(outcome="late", message="too late", taken_s=BEGAN_S + 0.005, returned_ms=0.0)
    found = spans(Sampled(CONTEXT, response(outcome="worker", message="overloaded"), [late], {}), ids())
    assert [(span.error, span.attributes.get("error.type")) for span in found] == [
        ("overloaded", "worker"),
        ("too late", "late"),
        (None, None),
    ]


def test_a_request_that_reached_no_task_has_one_span() -> None:
    (root,) = spans(Sampled(CONTEXT, response(outcome="request", message="wrong shape", request=""), [], {}), ids())
    assert (root.name, root.error) == ("infer g", "wrong shape")
    assert "jigsaw.request.id" not in root.attributes


def test_the_tasks_of_a_pipeline_make_up_the_request() -> None:
    first, second = hop(task="a"), hop(task="b", taken_s=BEGAN_S + 0.05, outcome="model", message="broken")
    root, *_ = found = spans(Sampled(CONTEXT, None, [first, second], {}), ids())
    assert (times(root), root.error, root.attributes["error.type"]) == ((2, 62), "broken", "model")
    assert [name for depth, name, _, _ in tree(found) if depth == 1] == ["a", "b"]


@pytest.mark.parametrize(("began_ms", "took_ms"), [(4.9, 10.3), (14.9, 5.0), (99.0, 1.0), (0.0, 0.0)])
def test_a_child_is_within_its_parent_whatever_the_clocks_say(began_ms: float, took_ms: float) -> None:
    runs = {("w", 7): [run(7, began_ms=began_ms, took_ms=took_ms)]}
    by_id = {s.id: s for s in spans(Sampled(CONTEXT, response(took_ms=11.0), [hop(call(7))], runs), ids())}
    children = [span for span in by_id.values() if span.parent in by_id]
    assert len(children) == 5
    for span in children:
        parent = by_id[span.parent]
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns
