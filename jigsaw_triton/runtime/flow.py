"""Schedules the steps of a pipeline for one request: which run, and when. Does no I/O of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.spec import PipelineSpec, PipelineStep


class FlowError(Exception):
    """A step failed, so that the request fails.

    Attributes:
        message: Message for the client.
        code: Error code, whose meaning is up to the caller of the step.
    """

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


Outcome = dict[str, Array] | FlowError


Call = Callable[[PipelineStep, Mapping[str, Array]], Mapping[str, Array]]
"""Function that runs a step with inputs by name and returns its outputs by name; raises nothing but FlowError."""


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """The steps that must run for certain outputs of a pipeline.

    Attributes:
        outputs: Output name for clients -> tensor of the graph.
        steps: Necessary steps, each with only its necessary outputs.
        missing: Number of tensors of other steps for which each step waits.
        waiting: Tensor -> indices of the steps that wait for it.
    """

    outputs: Mapping[str, str]
    steps: tuple[PipelineStep, ...]
    missing: tuple[int, ...]
    waiting: Mapping[str, tuple[int, ...]]


def plan_flow(spec: PipelineSpec, wanted: Sequence[str]) -> FlowPlan:
    """Selects the steps, and of each step the outputs, on which the wanted outputs depend.

    Raises:
        KeyError: The pipeline has no output of a wanted name.
    """
    outputs = {name: spec.outputs[name] for name in wanted}
    needed = set(outputs.values())
    steps: list[PipelineStep] = []
    for step in reversed(spec.steps):
        kept = {name: tensor for name, tensor in step.outputs.items() if tensor in needed}
        if kept:
            steps.insert(0, replace(step, outputs=kept))
            needed.update(step.inputs.values())
    given = set(spec.inputs.values())
    awaited = [set(step.inputs.values()) - given for step in steps]
    waiting = {
        tensor: tuple(index for index, tensors in enumerate(awaited) if tensor in tensors)
        for step in steps
        for tensor in step.outputs.values()
    }
    return FlowPlan(outputs, tuple(steps), tuple(map(len, awaited)), waiting)


class Flow:
    """The execution of a pipeline for one request.

    Args:
        plan: Plan for the requested outputs.
        tensors: Inputs of the graph by tensor name.
        call: Function that runs a step; may block.
        spawn: Function that calls a function on another thread.
        done: Callback that receives the outcome, exactly once.
    """

    def __init__(
        self,
        plan: FlowPlan,
        tensors: Mapping[str, Array],
        call: Call,
        spawn: Callable[[Callable[[], None]], object],
        done: Callable[[Outcome], None],
    ) -> None:
        self._plan = plan
        self._tensors = dict(tensors)
        self._call = call
        self._spawn = spawn
        self._done = done
        self._lock = Lock()
        self._missing = list(plan.missing)
        self._unfinished = len(plan.steps)
        self._ended = False

    def start(self) -> None:
        """Runs steps on this thread until it has none left to run; further branches run on other threads."""
        ready = [index for index, count in enumerate(self._plan.missing) if count == 0]
        if ready:
            self._run(ready)
        else:
            self._done(self._outputs())

    def _run(self, ready: list[int]) -> None:
        while ready:
            first, *others = ready
            for index in others:
                # The default argument binds the current index to this lambda.
                self._spawn(lambda index=index: self._run([index]))  # type: ignore[misc]  # mypy: a further parameter
            ready = self._run_step(first)

    def _run_step(self, index: int) -> list[int]:
        """Runs a step; returns the steps whose inputs are now complete."""
        step = self._plan.steps[index]
        try:
            made = self._call(step, {name: self._tensors[tensor] for name, tensor in step.inputs.items()})
        except FlowError as error:
            self._end(error)
            return []
        ready = []
        with self._lock:
            if self._ended:
                return []
            for name, tensor in step.outputs.items():
                self._tensors[tensor] = made[name]
                for waiter in self._plan.waiting[tensor]:
                    self._missing[waiter] -= 1
                    if self._missing[waiter] == 0:
                        ready.append(waiter)
            self._unfinished -= 1
            last = self._ended = self._unfinished == 0
        if last:
            self._done(self._outputs())
        return ready

    def _end(self, outcome: Outcome) -> None:
        """Ends the request before all steps have run; later outputs are discarded."""
        with self._lock:
            first = not self._ended
            self._ended = True
        if first:
            self._done(outcome)

    def _outputs(self) -> dict[str, Array]:
        return {name: self._tensors[tensor] for name, tensor in self._plan.outputs.items()}


class Gathering:
    """Combines the outcomes of a batch's items: the first failure, or the outputs stacked in the order of the items.

    Args:
        count: Number of items.
        done: Callback that receives the outcome of the batch, exactly once.
    """

    def __init__(self, count: int, done: Callable[[Outcome], None]) -> None:
        self._outcomes: list[dict[str, Array] | None] = [None] * count
        self._left = count
        self._done = done
        self._lock = Lock()

    def put(self, index: int, outcome: Outcome) -> None:
        """Adds the outcome of an item."""
        with self._lock:
            if self._left <= 0:
                return
            if isinstance(outcome, FlowError):
                self._left = 0
                whole: Outcome = outcome
            else:
                self._outcomes[index] = outcome
                self._left -= 1
                if self._left:
                    return
                whole = _stack([item for item in self._outcomes if item is not None])
        self._done(whole)


def _stack(items: Sequence[Mapping[str, Array]]) -> Outcome:
    stacked = {}
    for name in items[0]:
        arrays = [item[name] for item in items]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            text = ", ".join(str(list(shape[1:])) for shape in sorted(shapes))
            return FlowError(
                f"output {name} differs in shape between the items of the batch: {text}; send them one by one"
            )
        stacked[name] = np.concatenate(arrays)
    return stacked
