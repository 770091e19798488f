"""Record of a running deployment over time, in the form of a simulation's result."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from jigsaw_triton.controller.persistence.records import Revision
from jigsaw_triton.evaluation.rehearsal.outcomes import RequestsBySecond
from jigsaw_triton.evaluation.simulator.accounting import Change, Operation
from jigsaw_triton.gpus.catalog import CATALOG


@dataclass(frozen=True, slots=True)
class Sample:
    """State of a deployment at a moment.

    Attributes:
        at_s: Time in seconds from the start of the load.
        settled: True if no change is in progress.
        workers: Number of workers.
        slices: Compute slices of all MIG instances.
        capacity_rps: Capacity of the running plan, by graph.
        accuracy: Accuracy of the running plan, by graph.
    """

    at_s: float
    settled: bool
    workers: int
    slices: int
    capacity_rps: Mapping[str, float]
    accuracy: Mapping[str, float]


def sample(status: Mapping[str, Any], at_s: float) -> Sample:
    """Returns what a status says.

    Args:
        status: Status of the deployment; see `console.status`.
        at_s: Time of the status.
    """
    # Under MPS several workers have the same instance.
    instances = {
        (worker["node"], worker["gpu"], worker["start"]): CATALOG[worker["model"]].profiles[worker["slice"]]
        for worker in status["workers"]
        if worker["slice"] is not None
    }
    return Sample(
        at_s=at_s,
        settled=status["state"] == "ready",
        workers=len(status["workers"]),
        slices=sum(profile.compute_slices for profile in instances.values()),
        capacity_rps={name: graph["capacity_rps"] for name, graph in status["graphs"].items()},
        accuracy={name: graph["accuracy"] for name, graph in status["graphs"].items()},
    )


def operation(
    requests: Mapping[str, RequestsBySecond],
    samples: Sequence[Sample],
    revisions: Sequence[Revision],
    *,
    began: datetime,
) -> Operation:
    """Returns the record of a run.

    Args:
        requests: Requests in each second, by graph.
        samples: States of the deployment in the order of time; the first is from the start of the load.
        revisions: Generations of the deployment.
        began: Start of the load.
    """
    times_s = [one.at_s for one in samples]
    seconds = len(next(iter(requests.values())).sent)
    last_in_each = [samples[max(0, bisect_right(times_s, second + 1) - 1)] for second in range(seconds)]
    return Operation(
        arrived={name: one.sent for name, one in requests.items()},
        violations={name: one.violations for name, one in requests.items()},
        capacity_rps={name: np.array([one.capacity_rps.get(name, 0.0) for one in last_in_each]) for name in requests},
        accuracy={name: np.array([one.accuracy.get(name, 0.0) for one in last_in_each]) for name in requests},
        slices=np.array([float(one.slices) for one in last_in_each]),
        changes=tuple(_changes(samples, revisions, began)),
    )


def _changes(samples: Sequence[Sample], revisions: Sequence[Revision], began: datetime) -> Iterator[Change]:
    """Yields the changes since the start of the load. A generation that changed nothing is none."""
    for revision in revisions:
        at_s = (datetime.fromisoformat(revision.at) - began).total_seconds()
        if at_s < 0 or revision.outcome == "unchanged":
            continue
        # A change that has not ended yet lasts until the last sample.
        end_s = next((s.at_s for s in samples if s.at_s > at_s and s.settled), samples[-1].at_s)
        failure = "it was undone" if revision.outcome == "failed" else ""
        yield Change(at_s, max(0.0, end_s - at_s), revision.number, revision.reason, revision.slices, failure)
