"""One request's way through the steps of a pipeline: what runs when, and what is not run at all. No I/O of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.spec import PipelineSpec, PipelineStep


class FlowError(Exception):
    """The request gets no answer.

    Attributes:
        message: For the client.
        code: Whatever the caller of the step understands by it.
    """

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


Outcome = dict[str, Array] | FlowError


Call = Callable[[PipelineStep, Mapping[str, Array]], Mapping[str, Array]]
"""Runs a step: its inputs by their names there, to its outputs likewise; raises nothing but FlowError."""


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What must run for certain outputs of a pipeline.

    Attributes:
        outputs: Output name for clients -> tensor of the graph.
        steps: Those needed, with the outputs that somebody needs.
        missing: For each step how many tensors made by other steps it waits for.
        waiting: Tensor -> indices of the steps that wait for it.
    """

    outputs: Mapping[str, str]
    steps: tuple[PipelineStep, ...]
    missing: tuple[int, ...]
    waiting: Mapping[str, tuple[int, ...]]


def plan_flow(spec: PipelineSpec, wanted: Sequence[str]) -> FlowPlan:
    """Leaves out the steps that nothing wanted depends on, and the outputs of steps that nobody needs.

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
    """One request on its way.

    Args:
        plan: For the outputs it wants.
        tensors: The graph's inputs, by tensor name.
        call: Runs a step; may block.
        spawn: Has a function called on another thread.
        done: Told the outcome, exactly once.
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
        """Runs on this thread until nothing is left for it to do; branches run on others."""
        ready = [index for index, count in enumerate(self._plan.missing) if count == 0]
        if ready:
            self._run(ready)
        else:
            self._done(self._outputs())

    def _run(self, ready: list[int]) -> None:
        while ready:
            first, *others = ready
            for index in others:
                # The default binds this round's index; the checker takes it for a parameter.
                self._spawn(lambda index=index: self._run([index]))  # type: ignore[misc]
            ready = self._run_step(first)

    def _run_step(self, index: int) -> list[int]:
        """Runs a step; the steps that have all their inputs by it."""
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
        """Ends the request before all steps have run; what they make is dropped."""
        with self._lock:
            first = not self._ended
            self._ended = True
        if first:
            self._done(outcome)

    def _outputs(self) -> dict[str, Array]:
        return {name: self._tensors[tensor] for name, tensor in self._plan.outputs.items()}


class Gathering:
    """Joins the outcomes of a batch's items into one: the first failure, or the outputs stacked in the items' order.

    Args:
        count: Of items.
        done: Told the outcome of the whole, exactly once.
    """

    def __init__(self, count: int, done: Callable[[Outcome], None]) -> None:
        self._outcomes: list[dict[str, Array] | None] = [None] * count
        self._left = count
        self._done = done
        self._lock = Lock()

    def put(self, index: int, outcome: Outcome) -> None:
        """The outcome of an item."""
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
