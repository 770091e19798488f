"""Records of a request are put together."""

from dataclasses import replace

import pytest

from jigsaw_triton.console.otlp import assembly
from jigsaw_triton.console.otlp.assembly import LOST_S, PIPELINE_S, SETTLE_S, Assembly
from jigsaw_triton.runtime.trace import Hop, Response, Run
from tests.console.otlp.records import CONTEXT, call, hop, response, run


def added(*records: Hop | Response | Run) -> Assembly:
    made = Assembly()
    for record in records:
        made.add(record, 100.0)
    return made


def test_a_request_is_complete_some_seconds_after_its_response() -> None:
    made = added(hop(call(7), task="a"), hop(call(8), task="b"), response())
    assert list(made.complete(100.0 + 0.9 * SETTLE_S)) == []
    made.add(run(8, began_ms=9), 100.5)
    made.add(run(8, began_ms=3), 100.5)
    (found,) = made.complete(100.0 + SETTLE_S)
    assert (found.context, found.response) == (CONTEXT, response())
    assert [h.task for h in found.hops] == ["a", "b"]
    assert {key: [r.began_s for r in runs] for key, runs in found.runs.items()} == {
        ("w", 8): [run(began_ms=3).began_s, run(began_ms=9).began_s]
    }
    assert list(made.complete(float("inf"))) == []


def test_requests_of_one_trace_are_kept_apart() -> None:
    other = replace(CONTEXT, span="1" * 16)
    made = added(hop(), hop(trace=other), response(trace=other), response())
    assert [(found.context, len(found.hops)) for found in made.complete(float("inf"))] == [(CONTEXT, 1), (other, 1)]


@pytest.mark.parametrize(("partial", "seconds"), [(True, PIPELINE_S), (False, LOST_S)])
def test_a_request_without_a_response_is_complete_when_nothing_follows(partial: bool, seconds: float) -> None:
    made = added(hop(partial=partial))
    made.add(hop(task="b", partial=partial), 105.0)
    assert list(made.complete(104.9 + seconds)) == []
    (found,) = made.complete(105.0 + seconds)
    assert (found.response, [h.task for h in found.hops]) == (None, ["detect", "b"])


def test_requests_that_are_not_sampled_are_ignored() -> None:
    assert list(added(hop(trace=None), run(7)).complete(float("inf"))) == []


def test_too_many_requests_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_OPEN", 2)
    contexts = [replace(CONTEXT, span=f"{n:016x}") for n in range(1, 5)]
    made = added(*(hop(trace=context) for context in contexts), *(run(n) for n in range(9)))
    assert [found.context for found in made.complete(float("inf"))] == contexts[2:]
    assert made.dropped == 2
