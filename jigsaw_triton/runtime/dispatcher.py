"""The gateway's model that does a task by sending its batches to workers; one batch under way an instance.

`execute` is synchronous on purpose: while the instance waits for its worker, Triton's scheduler forms the next batch.
"""

import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.answers import late, response, tensors
from jigsaw_triton.runtime.backlog import Backlog, Mark
from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.counters import Counters, Row
from jigsaw_triton.runtime.delivery import Delivery
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.metrics import Publisher
from jigsaw_triton.runtime.pace import Pace
from jigsaw_triton.runtime.pending import Pending
from jigsaw_triton.runtime.route import Route
from jigsaw_triton.runtime.spec import (
    METRICS_VARIABLE,
    RUN_DIR_VARIABLE,
    SECRET_VARIABLE,
    SHM_PREFIX_VARIABLE,
    SPEC_PARAMETER,
    dispatcher_from_json,
)
from jigsaw_triton.runtime.tally import Layout, Tally
from jigsaw_triton.runtime.tracer import Tracer, told_to_workers

LOOK_FROM_S = 0.005
"""A batch that waited less than this is not looked through for requests that are late."""


class TritonPythonModel:
    """A task's dispatcher, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the spec and the route.

        Raises:
            RuntimeError: The environment does not name the run directory or the metrics.
        """
        for variable in (RUN_DIR_VARIABLE, METRICS_VARIABLE):
            if variable not in os.environ:
                raise RuntimeError(f"{variable} is not set; start the gateway with it")
        run_dir = Path(os.environ[RUN_DIR_VARIABLE])
        name = args["model_name"]
        log = pb_utils.Logger.log_warn
        self._spec = dispatcher_from_json(
            json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"]
        )
        self._largest = 1
        self._pending = Pending(os.environ[METRICS_VARIABLE], name)
        layout, number = Layout(self._spec), _number(args["model_instance_name"])
        self._counters = Counters(run_dir / "counters" / name, number, layout.rows)
        self._tally = Tally(self._spec, layout, self._counters)
        self._tracer = Tracer(self._spec, run_dir, name, number)
        self._publisher = Publisher(self._spec, layout, self._counters) if number == 0 else None
        self._backlog = Backlog(self._spec.share_ms / 1000, self._pending, time.monotonic)
        self._pace = Pace(self._counters.total(Row.LATE), time.monotonic)
        route = Route(run_dir / "routes" / f"{name}.json", log)
        self._delivery = Delivery(
            self._spec,
            route,
            run_dir,
            self._counters,
            log,
            self._pending,
            secret=os.environ.get(SECRET_VARIABLE, ""),
            shm_prefix=os.environ.get(SHM_PREFIX_VARIABLE, ""),
        )
        if self._publisher is not None:
            self._publisher.start()
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Sends a batch to workers and answers each request."""
        began_s = time.monotonic()
        wanted = [request.requested_output_names() for request in requests]
        inputs = [tensors(request) for request in requests]
        traced = self._tracer.choose([request.request_id() for request in requests])
        self._took(inputs)
        refused = self._late(requests)
        kept = [given for index, given in enumerate(inputs) if index not in refused] if refused else inputs
        batch = Batch(self._spec, kept, {name for names in wanted for name in names})
        trips = self._delivery.run(batch, told_to_workers(traced, refused))
        sent = batch.results()
        self._tally.delivered(batch, len(kept), trips)
        done = iter(sent)
        results = [refused[index] if index in refused else next(done) for index in range(len(requests))]
        blaming = self._spec.blaming
        responses = [response(result, names, blaming=blaming) for result, names in zip(results, wanted, strict=True)]
        self._tally.returned(sent, time.monotonic() - began_s)
        if traced:
            self._tracer.write(traced, began_s, self._backlog.waited_s, refused, results, trips)
        if refused and (pause_s := self._pace.pause_s(len(refused), self._counters.total(Row.LATE))):
            time.sleep(pause_s)
        self._backlog.returned()
        return responses

    def finalize(self) -> None:
        """Closes the connections: a server with open ones is slow to stop."""
        self._delivery.close()
        self._pending.close()
        if self._publisher is not None:
            self._publisher.close()

    def _took(self, inputs: Sequence[Mapping[str, Array]]) -> None:
        """Counts the batch, and makes out how long its requests may have waited."""
        counts = self._counters
        sizes = [len(next(iter(given.values()))) for given in inputs]
        self._largest = max(self._largest, *sizes)
        latest = counts.all[Row.MARK_TIME].argmax()
        seen = Mark(float(counts.all[Row.MARK_NUMBER, latest]), float(counts.all[Row.MARK_TIME, latest]))
        # Triton ends a batch before a request that would make it larger than full.
        full = sum(sizes) + self._largest > self._spec.full
        mark = self._backlog.took(counts.total(Row.TAKEN), len(inputs), full=full, seen=seen)
        counts.own[Row.TAKEN] += len(inputs)
        self._tally.waited(len(inputs), self._backlog.waited_s(len(inputs) // 2))
        if mark is not None:
            counts.own[Row.MARK_TIME], counts.own[Row.MARK_NUMBER] = mark.time_s, mark.number

    def _late(self, requests: Sequence[Any]) -> dict[int, Failure]:
        """Those that cannot be answered in time any more.

        Under overload a batch goes as a whole: if its last request has waited too long all have, and the next batch is
        full again. A request that brings a timeout is judged by that alone.
        """
        backlog = self._backlog
        if backlog.bound_s < LOOK_FROM_S:
            return {}
        slack_s = self._spec.slack_ms / 1000
        overloaded = backlog.is_overloaded(backlog.waited_s(len(requests) - 1))
        found = {}
        for index, request in enumerate(requests):
            own_s, waited_s = request.timeout() / 1e6, backlog.waited_s(index)
            if own_s:
                if waited_s > own_s:
                    found[index] = self._refusal(waited_s, own_s)
            elif overloaded or waited_s > slack_s:
                found[index] = self._refusal(waited_s, 0.0)
        if overloaded:
            backlog.refused()
        self._counters.own[Row.LATE] += len(found)
        return found

    def _refusal(self, waited_s: float, own_s: float) -> Failure:
        return Failure(f"task {self._spec.task}: {late(waited_s, own_s)}", "worker")


def _number(instance: str) -> int:
    """The instance's: Triton names them `<model>_<group>_<number>`."""
    number = instance.rpartition("_")[2]
    return int(number) if number.isdigit() else 0
