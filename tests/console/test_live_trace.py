"""The console reads traces that the compiled backend has written."""

import numpy as np

from jigsaw_triton.console.trace import Trace, read_traces
from tests.native.conftest import Bench, bench, double
from tests.native.core import Array
from tests.native.specs import ONE, spec, task
from tests.native.worker import Call
from tests.waiting import WAIT_LIMIT_S

__all__ = ["bench"]


def routed(name: str, source: str = "inputs.X", **more: object) -> dict[str, object]:
    return {**task(name, {"X": (source, ONE)}, **more), "route": f"g.{name}.g1"}  # type: ignore[arg-type]


def traced(bench: Bench) -> Trace:
    """Ends all requests and returns the only trace."""
    bench.engine.close_fronts()
    (trace,) = read_traces(bench.run_dir, "g")
    return trace


def test_a_request_is_followed_through_its_tasks(bench: Bench) -> None:
    bench.worker("a", double)
    bench.route("a", name="g.t.g1", variant="fast")
    bench.route("a", name="g.u.g1")
    front = bench.engine.front(spec([routed("t"), routed("u", "t.Y")], outputs={"Y": ("u.Y", ONE)}))
    front.ask({"X": np.array([[1]], np.int64)})
    front.ask({"X": np.array([[1], [2]], np.int64)}, id="7")
    trace = traced(bench)
    first, second = trace.stays
    assert (trace.request, trace.outcome) == ("7", "answered")
    assert [(stay.hop.task, stay.hop.route) for stay in trace.stays] == [("t", "g.t.g1"), ("u", "g.u.g1")]
    for stay in trace.stays:
        (call,) = stay.hop.calls
        assert (call.worker, call.items, call.batch, call.outcome) == ("a", 2, 2, "answered")
        assert 0 <= stay.hop.waited_ms < 1000 * WAIT_LIMIT_S
        assert 0 <= call.sent_ms <= call.ended_ms <= stay.hop.returned_ms < 1000 * WAIT_LIMIT_S
    # Times are rounded to microseconds.
    assert first.ended_s <= second.hop.taken_s + 1e-5


def test_a_step_that_answers_the_request_is_traced_like_a_task(bench: Bench) -> None:
    def answer(call: Call) -> dict[str, Array]:
        return {"JIGSAW_ANSWERED": np.array([[1]], np.uint8), "JIGSAW_ANSWER.Y": np.array([[5]], np.int64)}

    bench.worker("steps-g", answer)
    bench.route("steps-g", name="g.s.g1", batch=1)
    front = bench.engine.front(spec([routed("s", step=True, mode="items")], outputs={"Y": ("s.Y", ONE)}))
    outcome = front.ask({"X": np.array([[1]], np.int64)}, id="7")
    assert outcome["Y"].tolist() == [[5]]
    assert 0 < outcome.sent_ns <= outcome.received_ns
    assert bench.engine.count("jigsaw_dispatch_seconds", task="s") == 1
    (stay,) = traced(bench).stays
    assert (stay.hop.task, stay.hop.outcome, len(stay.hop.calls)) == ("s", "answered", 1)


def test_outputs_of_different_shapes_are_traced_and_counted_as_a_failure(bench: Bench) -> None:
    """The worker answers each item with as many elements as the item's value."""

    def varying(call: Call) -> dict[str, Array]:
        return {"Y": np.full((1, int(call.inputs["X"].item())), b"y", np.object_)}

    text = ("BYTES", (-1,))
    bench.worker("a", varying)
    bench.route("a", name="g.t.g1")
    made = routed("t", outputs={"Y": text}, mode="items")
    failed = bench.engine.front(spec([made], outputs={"Y": ("t.Y", text)})).ask(
        {"X": np.array([[1], [2]], np.int64)}, id="7"
    )
    assert bench.engine.metric("jigsaw_refused_total", reason=failed.blame) == 1
    (stay,) = traced(bench).stays
    assert (stay.hop.outcome, stay.hop.message) == (failed.blame, failed.message)
