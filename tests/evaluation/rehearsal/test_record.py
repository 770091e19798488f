from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from jigsaw_triton.controller.persistence.records import Outcome, Revision
from jigsaw_triton.evaluation.rehearsal.outcomes import RequestsBySecond
from jigsaw_triton.evaluation.rehearsal.record import Sample, operation, sample
from jigsaw_triton.evaluation.simulator.accounting import Operation

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
SENT = np.array([10.0, 20.0, 30.0, 40.0])
REQUESTS = RequestsBySecond(SENT, np.zeros(4), np.array([0.0, 4.0, 0.0, 0.0]), np.array([0.0, 0.0, 6.0, 0.0]))


def at(at_s: float, slices: int, *, settled: bool = True, accuracy: float = 1.0) -> Sample:
    return Sample(at_s, settled, slices, slices, {"g": 10.0 * slices}, {"g": accuracy})


def revision(number: int, at_s: float, outcome: Outcome | Literal[""] = "serves") -> Revision:
    return Revision(number, (BEGAN + timedelta(seconds=at_s)).isoformat(), "load", "more load", 5, 7, outcome)


def record(samples: list[Sample], *revisions: Revision) -> Operation:
    return operation({"g": REQUESTS}, samples, revisions, began=BEGAN)


def worker(slice_: str | None, start: int, *, gpu: int = 0) -> dict[str, Any]:
    return {"node": "n", "gpu": gpu, "start": start, "slice": slice_, "model": "A100-80GB"}


def test_a_status_has_the_slices_of_all_instances() -> None:
    # The first two share an instance under MPS; the last is a steps worker.
    workers = [worker("3g", 0), worker("3g", 0), worker("2g", 4), worker("3g", 0, gpu=1), worker(None, 0)]
    graphs = {"g": {"capacity_rps": 50.0, "accuracy": 0.9}}
    status = {"state": "changing", "workers": workers, "graphs": graphs}
    assert sample(status, 1.5) == Sample(1.5, False, 5, 8, {"g": 50.0}, {"g": 0.9})


def test_each_second_has_the_last_state_in_it() -> None:
    found = record([at(-0.5, 1), at(0.4, 2), at(0.9, 3), at(2.2, 4, accuracy=0.8)])
    assert found.slices.tolist() == [3, 3, 4, 4]
    assert found.capacity_rps["g"].tolist() == [30, 30, 40, 40]
    assert found.accuracy["g"].tolist() == [1.0, 1.0, 0.8, 0.8]


def test_requests_and_violations_are_those_of_the_clients() -> None:
    found = record([at(-0.5, 1)])
    assert found.arrived["g"].tolist() == [10, 20, 30, 40]
    assert found.violations["g"].tolist() == [0, 4, 6, 0]
    assert found.violation_share == 0.1


def test_a_change_lasts_until_the_deployment_has_settled() -> None:
    samples = [at(-0.5, 1), at(0.5, 1), at(1.5, 1, settled=False), at(3.0, 5), at(4.0, 5)]
    (change,) = record(samples, revision(1, -5), revision(2, 1.0)).changes
    assert (change.at_s, change.seconds, change.generation) == (1.0, 2.0, 2)
    assert (change.reason, change.slices, change.failure) == ("more load", 5, "")


def test_a_change_that_has_not_ended_lasts_until_the_last_state() -> None:
    samples = [at(-0.5, 1), at(1.5, 1, settled=False), at(2.5, 1, settled=False)]
    (change,) = record(samples, revision(2, 1.0, "")).changes
    assert change.seconds == 1.5


def test_a_failed_change_is_marked_and_an_unchanged_plan_is_none() -> None:
    samples = [at(-0.5, 1), at(3.0, 1)]
    changes = record(samples, revision(2, 1.0, "failed"), revision(3, 2.0, "unchanged")).changes
    assert [(change.generation, bool(change.failure)) for change in changes] == [(2, True)]
