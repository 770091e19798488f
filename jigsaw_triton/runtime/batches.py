"""From the requests of one `execute` to batches for workers, and from their answers back to each request.

No I/O. An item is what a model is called for once: an item of a request's batch dimension, or a row. All items that may
travel together stand in a line, a `Group`; requests and parts are intervals of it, so that no answer can reach another
request. The order in which parts are taken, answered, lost and taken again does not matter.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, size_bytes, to_numpy
from jigsaw_triton.runtime.spec import CONDITION_INPUT, Condition, DispatcherSpec, TensorSpec

Blame = Literal["request", "model", "worker"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request gets no outputs.

    Attributes:
        message: For the client.
        blame: `request`: its own fault; `model`: a model failed on it; `worker`: no worker could do it, later may help.
    """

    message: str
    blame: Blame


@dataclass(slots=True)
class _Span:
    """A request's items in its group's line.

    Attributes:
        request: Index of the request.
        start: First item in the line.
        stop: After the last.
        inputs: For each input of the task either one entry an item, or one for each `repeat` items.
        lead: Leading dimensions of the request's outputs; their product is the number of items.
    """

    request: int
    start: int
    stop: int
    inputs: tuple[Array, ...]
    lead: tuple[int, ...]

    def slice(self, index: int, start: int, stop: int) -> Array:
        """The input for items [start, stop) of the line."""
        array, first, last = self.inputs[index], start - self.start, stop - self.start
        repeat = (self.stop - self.start) // len(array)
        return array[first:last] if repeat == 1 else array[np.arange(first, last) // repeat]


@dataclass(slots=True)
class Group:
    """Items of equal shapes in a line."""

    names: tuple[str, ...]
    spans: list[_Span] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    size: int = 0
    answers: list[tuple[int, int, Arrays]] = field(default_factory=list)

    def append(self, request: int, inputs: tuple[Array, ...], lead: tuple[int, ...]) -> None:
        """Puts a request's items at the end of the line."""
        count = math.prod(lead)
        self.spans.append(_Span(request, self.size, self.size + count, inputs, lead))
        self.starts.append(self.size)
        self.size += count

    def overlapping(self, start: int, stop: int) -> Iterator[_Span]:
        """Spans that have items in [start, stop), in order."""
        for index in range(bisect_right(self.starts, start) - 1, len(self.spans)):
            span = self.spans[index]
            if span.start >= stop:
                return
            yield span


@dataclass(frozen=True, slots=True)
class Part:
    """Items [start, stop) of a group, on their way to one worker in one batch.

    Attributes:
        group: Whose.
        start: First.
        stop: After the last.
        tries: How often a worker may have executed it without answering.
        avoid: Workers that failed on it.
        again: Whether it was sent before, alone or as part of another.
    """

    group: Group
    start: int
    stop: int
    tries: int = 0
    avoid: frozenset[str] = frozenset()
    again: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def shares(self) -> dict[int, int]:
        """Index of each request that has items in it -> how many."""
        spans = self.group.overlapping(self.start, self.stop)
        return {s.request: min(s.stop, self.stop) - max(s.start, self.start) for s in spans}

    def inputs(self) -> dict[str, Array]:
        """What the worker gets: [items, ...] each; views where no joining is needed."""
        return {name: pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for name, pieces in self.pieces()}

    def pieces(self) -> Iterator[tuple[str, list[Array]]]:
        """The same before it is joined: each input's name and its arrays, to be joined along the first axis."""
        group = self.group
        spans = list(group.overlapping(self.start, self.stop))
        for index, name in enumerate(group.names):
            yield name, [span.slice(index, max(span.start, self.start), min(span.stop, self.stop)) for span in spans]


class Batch:
    """The requests of one `execute`, from arrival to answer.

    Args:
        spec: The dispatcher's.
        requests: Each request's inputs, as Triton hands them over.
        outputs: Names of the outputs wanted; all of the spec's where None.

    Attributes:
        held: Of a conditional task: requests whose condition holds, so that it runs for them.
    """

    def __init__(
        self, spec: DispatcherSpec, requests: Sequence[Arrays], outputs: Collection[str] | None = None
    ) -> None:
        self._spec = spec
        self._counts = {name: of for name, of in spec.counts.items() if outputs is None or name in outputs}
        counted = self._counts.values()
        self._wanted = tuple(o for o in spec.outputs if outputs is None or o.name in outputs)
        self._asked = tuple(o for o in spec.outputs if o in self._wanted or o.name in counted)
        self._results: list[dict[str, Array] | Failure | None] = [None] * len(requests)
        self._groups: dict[tuple[object, ...], Group] = {}
        self.held = 0
        for index, inputs in enumerate(requests):
            self._enter(index, inputs)
        self._pending: deque[Part] = deque()
        for group in self._groups.values():
            step = 1 if spec.one_by_one else group.size
            self._pending.extend(Part(group, start, start + step) for start in range(0, group.size, step))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs to ask workers for: those wanted, and those whose rows are counted."""
        return self._asked

    @property
    def output_names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(o.name for o in self._asked)

    def bytes_per_request(self) -> float:
        """Of the inputs, on average over the requests that have items; 0 where none has."""
        spans = [span for group in self._groups.values() for span in group.spans]
        return sum(size_bytes(array) for span in spans for array in span.inputs) / max(1, len(spans))

    def head(self) -> Part | None:
        """What is to be sent next, from the first item on that is still of use; None when nothing is waiting."""
        while self._pending:
            part = self._pending[0]
            for span in part.group.overlapping(part.start, part.stop):
                if self._results[span.request] is None:
                    if span.start > part.start:
                        self._pending[0] = part = replace(part, start=span.start)
                    return part
            self._pending.popleft()
        return None

    def take(self, limit: int) -> Part:
        """Takes at most `limit` items of the head; the rest stays the head.

        Raises:
            IndexError: Nothing is waiting.
        """
        part = self._pending.popleft()
        if len(part) <= limit:
            return part
        self._pending.appendleft(replace(part, start=part.start + limit))
        return replace(part, stop=part.start + limit)

    def answered(self, part: Part, outputs: Arrays) -> None:
        """A worker answered the part.

        Raises:
            ValueError: The outputs are not what the task is to give; the part counts as unanswered.
        """
        for output in self._asked:
            check_output(output, outputs.get(output.name), len(part))
        part.group.answers.append((part.start, part.stop, outputs))

    def refused(self, part: Part, failure: Failure) -> None:
        """A worker answered the part with an error; where it holds several requests each is tried on its own."""
        spans = list(part.group.overlapping(part.start, part.stop))
        if len(spans) == 1:
            self._fail_all(part, failure)
            return
        self._pending.extendleft(
            replace(part, start=max(span.start, part.start), stop=min(span.stop, part.stop), again=True)
            for span in reversed(spans)
        )

    def lost(self, part: Part, worker: str, failure: Failure, *, executed: bool) -> None:
        """A worker failed on the part; where it may have been executed it is sent once more, else again and again."""
        if not executed:
            self._pending.appendleft(replace(part, again=True))
        elif part.tries == 0:
            self._pending.appendleft(replace(part, tries=1, avoid=part.avoid | {worker}, again=True))
        else:
            self._fail_all(part, failure)

    def abandon(self, failure: Failure) -> None:
        """Gives up on all that is waiting."""
        while self._pending:
            self._fail_all(self._pending.popleft(), failure)

    def results(self) -> list[dict[str, Array] | Failure]:
        """Outputs or failure of each request, in their order; to be called once nothing is waiting or under way."""
        for group in self._groups.values():
            group.answers.sort(key=lambda answer: answer[0])
            starts = [start for start, _, _ in group.answers]
            for span in group.spans:
                if self._results[span.request] is None:
                    first = bisect_right(starts, span.start) - 1
                    last = bisect_right(starts, span.stop - 1)
                    self._results[span.request] = self._gather(group.answers[first:last], span)
        assert all(result is not None for result in self._results)
        return [result for result in self._results if result is not None]

    def _fail_all(self, part: Part, failure: Failure) -> None:
        for span in part.group.overlapping(part.start, part.stop):
            if self._results[span.request] is None:
                self._results[span.request] = failure

    def _enter(self, index: int, inputs: Arrays) -> None:
        try:
            holds = self._spec.condition is None or _holds(self._spec.condition, inputs[CONDITION_INPUT])
            lead, arrays = _items(self._spec, inputs, holds=holds)
        except ValueError as error:
            self._results[index] = Failure(str(error), "request")
            return
        self.held += holds
        if math.prod(lead) == 0:
            self._results[index] = {
                **{o.name: _empty(o, lead[:1] if self._flat(o) else lead) for o in self._wanted},
                **{name: np.empty((*lead, 1), np.int64) for name in self._counts},
            }
            return
        key: tuple[object, ...] = (index,) if self._spec.mode == "items" else tuple(array.shape[1:] for array in arrays)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(tuple(tensor.name for tensor in self._spec.inputs))
        group.append(index, arrays, lead)

    def _gather(self, answers: Sequence[tuple[int, int, Arrays]], span: _Span) -> dict[str, Array] | Failure:
        """A request's outputs from the answers that hold items of it, in order."""

        def pieces(name: str) -> list[Array]:
            return [outputs[name][max(span.start - start, 0) : span.stop - start] for start, _, outputs in answers]

        gathered = {}
        for output in self._wanted:
            try:
                if self._flat(output):
                    gathered[output.name] = _in_a_row(pieces(output.name), span.lead[1])
                else:
                    whole = _joined(pieces(output.name), axis=0)
                    gathered[output.name] = whole if len(span.lead) == 1 else whole.reshape(span.lead + whole.shape[1:])
            except ValueError as error:
                return Failure(f"output {output.name} {error}", "request")
        for name, of in self._counts.items():
            counts = [piece.shape[1] for piece in pieces(of) for _ in piece]
            gathered[name] = np.array(counts, np.int64).reshape(*span.lead, 1)
        return gathered

    def _flat(self, output: TensorSpec) -> bool:
        """Whether it holds rows of rows."""
        return self._spec.mode == "rows" and output.name in self._spec.yields


def check_output(spec: TensorSpec, array: Array | None, items: int) -> None:
    """Checks one output of a model.

    Args:
        spec: For one item.
        array: With a leading batch dimension.
        items: How many were asked for.

    Raises:
        ValueError: It is missing, or of another data type or shape; says which.
    """
    if array is None:
        raise ValueError(f"output {spec.name} is missing")
    if array.dtype != to_numpy(spec.dtype):
        raise ValueError(f"output {spec.name} is of type {array.dtype} where {spec.dtype} was declared")
    expected = (items, *spec.shape)
    shape = array.shape
    if len(shape) != len(expected) or any(e not in (-1, s) for e, s in zip(expected, shape, strict=True)):
        raise ValueError(f"output {spec.name} has shape {list(shape)} where {list(expected)} was declared")


def _items(spec: DispatcherSpec, inputs: Arrays, *, holds: bool) -> tuple[tuple[int, ...], tuple[Array, ...]]:
    """A request as items.

    Args:
        spec: The dispatcher's.
        inputs: Of the request.
        holds: Whether the task runs for it at all.

    Returns:
        The leading dimensions of its outputs, and its inputs with one entry an item, or one for several items.

    Raises:
        ValueError: The inputs do not fit together.
    """
    arrays = [inputs[tensor.name] for tensor in spec.inputs]
    batch = len(arrays[0])
    if any(len(array) != batch for array in arrays):
        raise ValueError(_mismatch("batch size", spec.inputs, arrays, axis=0))
    if spec.mode != "rows":
        return (batch,), tuple(arrays)
    iterated = [index for index, tensor in enumerate(spec.inputs) if tensor.iterated]
    counts = {arrays[index].shape[1] for index in iterated} or {1}
    if len(counts) > 1:
        raise ValueError(_mismatch("number of rows", spec.inputs, arrays, axis=1))
    (rows,) = counts
    if not holds:
        rows = 0
    if rows:
        for index in iterated:
            # Not -1, which numpy cannot make out where rows are empty.
            arrays[index] = arrays[index].reshape(batch * rows, *arrays[index].shape[2:])
    return (batch, rows), tuple(arrays)


def _mismatch(what: str, specs: Sequence[TensorSpec], arrays: Sequence[Array], *, axis: int) -> str:
    counts = [f"{s.name} has {a.shape[axis]}" for s, a in zip(specs, arrays, strict=True) if s.iterated or axis == 0]
    return f"inputs differ in {what}: {', '.join(counts)}"


def _joined(pieces: Sequence[Array], *, axis: int) -> Array:
    """One array of several.

    Raises:
        ValueError: They differ in shape.
    """
    if len(pieces) == 1:
        return pieces[0]
    shapes = {(*piece.shape[1:axis], *piece.shape[axis + 1 :]) for piece in pieces}
    if len(shapes) > 1:
        text = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise ValueError(f"differs in shape between the items of the request: {text}")
    return np.concatenate(pieces, axis)


def _in_a_row(items: Sequence[Array], calls: int) -> Array:
    """The rows of a request's items, [1, rows, ...] each, one after the other for each entry of its batch.

    Args:
        items: In order.
        calls: How many of them belong to one entry.

    Raises:
        ValueError: They differ in shape.
    """
    entries = [_joined(items[start : start + calls], axis=1) for start in range(0, len(items), calls)]
    return _joined(entries, axis=0)


def _holds(condition: Condition, tensor: Array) -> bool:
    if tensor.size != 1:
        raise ValueError(f"condition needs one element, got shape {list(tensor.shape)}")
    value = float(tensor.item())
    if condition.above is not None:
        return value > condition.above
    return condition.below is not None and value < condition.below


def _empty(spec: TensorSpec, lead: tuple[int, ...]) -> Array:
    return np.empty((*lead, *(0 if dim == -1 else dim for dim in spec.shape)), to_numpy(spec.dtype))
