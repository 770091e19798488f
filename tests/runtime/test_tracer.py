from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.route import RouteEntry
from jigsaw_triton.runtime.spec import DispatcherSpec, TensorSpec
from jigsaw_triton.runtime.trace import Hop, hop_from_json
from jigsaw_triton.runtime.tracer import Tracer, told_to_workers
from jigsaw_triton.runtime.trips import Trip

X = TensorSpec("X", "INT64", (1,))
SPEC = DispatcherSpec("g", "t", "stack", (X,), (X,))
LATE = Failure("overloaded", "worker")


def test_late_requests_are_told_as_such_and_the_others_find_their_calls(tmp_path: Path) -> None:
    """Of three requests the first is late, so that the others are the batch's first and second."""
    batch = Batch(SPEC, [{"X": np.zeros((1, 1), np.int64)}, {"X": np.zeros((2, 1), np.int64)}])
    trip = Trip(batch.take(8), RouteEntry("w", "m", 8, 1, "v"), 10.001, 10.005, "answered", number=1)
    tracer = Tracer(SPEC, tmp_path, "g.t.g1", 2, clock=lambda: 10.007, wall=lambda: 5000.0)
    chosen = {0: "late", 2: "seven"}
    late = {0: LATE}
    tracer.write(chosen, 10.0, lambda index: 0.1 * index, late, [LATE, {}, {}], [trip])
    lines = (tmp_path / "traces" / "gateway" / "g.t.g1.2.jsonl").read_text().splitlines()
    first, second = map(hop_from_json, lines)
    assert first == Hop("late", "g", "t", "g.t.g1", 4999.993, 0.0, 7.0, 3, "late", "overloaded", ())
    assert (second.outcome, second.waited_ms) == ("answered", 200.0)
    (call,) = second.calls
    assert (call.items, call.batch, call.sent_ms, call.ended_ms, call.number) == (2, 3, 1.0, 5.0, 1)
    assert told_to_workers(chosen, late) == "seven"
    assert told_to_workers({}, {}) == ""
