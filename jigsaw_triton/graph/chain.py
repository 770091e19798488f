"""Chains of tasks that can be done in one call, and the graph in which chains are one task each.

A task may follow another in a chain where that changes nothing but the way between the two:

- What the one before makes is needed by the other alone; what goes out to clients beside may.
- Whatever else the other needs is there before the one before begins, so that nothing waits longer than it would.
- Both are called for the same items: once a request, or once a row of the same rows. Neither is conditional, and of
  neither the gateway counts the rows.
- Where the shape of what goes between them varies, that of an input of the one before does, too: so it shows from
  outside of any chain whether its items can be joined.

Where a worker does a chain in one call the gateway sees the graph in which the chain is one task, `first~second`. Its
inputs are the tensors that come from outside of the chain, named as they are in the graph (`inputs.X`); its outputs are
those that leave the chain, named by the task that makes them (`second.Y`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, TensorRef, TensorType, Variant
from jigsaw_triton.runtime.chains import joined


@dataclass(frozen=True, slots=True)
class Chain:
    """Tasks each of which hands all that it makes to the next.

    Attributes:
        tasks: At least two names, in order.
        variants: That do them.
    """

    tasks: tuple[str, ...]
    variants: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the one task that it becomes."""
        return joined(self.tasks)

    @property
    def variant(self) -> str:
        """Of that task's one variant."""
        return joined(self.variants)


def followers(graph: TaskGraph) -> dict[str, str]:
    """Task -> the one that may follow it in a chain; no task follows two."""
    users: dict[str, set[str]] = {}
    done: dict[str, frozenset[str]] = {}
    for node in graph.in_order():
        needed = node.dependencies()
        done[node.name] = needed.union(*(done[name] for name in needed))
        for name in needed:
            users.setdefault(name, set()).add(node.name)
    return {
        before: task.name
        for task in graph.tasks.values()
        for before in sorted(task.dependencies() & graph.tasks.keys())
        if users[before] == {task.name}
        and task.dependencies() - {before} <= done[before]
        and _alike(graph, graph.tasks[before], task)
    }


def runs(after: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """The longest chains of tasks each of which is followed by the next.

    Args:
        after: Task -> the one that follows it, some of `followers`.
    """

    def on(task: str) -> tuple[str, ...]:
        return (task, *(on(after[task]) if task in after else ()))

    return tuple(on(task) for task in after if task not in after.values())


def with_chains(graph: TaskGraph, chains: Iterable[Chain]) -> TaskGraph:
    """The graph with each chain as one task, in the place of the chain's first.

    Args:
        graph: That has the chains.
        chains: No task in two of them.
    """
    by_first = {chain.tasks[0]: chain for chain in chains}
    of = {task: chain for chain in by_first.values() for task in chain.tasks}
    moved = {
        TensorRef(name, output): TensorRef(chain.name, str(TensorRef(name, output)))
        for name, chain in of.items()
        for output in graph.tasks[name].outputs
    }
    tasks: dict[str, Task] = {}
    for name, task in graph.tasks.items():
        if name in by_first:
            task = as_task(graph, by_first[name])
        elif name in of:
            continue
        tasks[task.name] = _redirected(task, moved)
    return replace(
        graph,
        tasks=tasks,
        steps={name: replace(step, inputs=_moved(step.inputs, moved)) for name, step in graph.steps.items()},
        outputs=_moved(graph.outputs, moved),
    )


def as_task(graph: TaskGraph, chain: Chain) -> Task:
    """The chain as one task of the graph."""
    inside = [graph.tasks[name] for name in chain.tasks]
    first, last = inside[0], inside[-1]
    own = frozenset(chain.tasks)
    others = (node for node in graph.in_order() if node.name not in own)
    needed = frozenset([*graph.outputs.values(), *(ref for node in others for ref in _needed(node))])
    made = {TensorRef(task.name, name): kind for task in inside for name, kind in task.outputs.items()}
    # Of a task of which nobody needs anything there is nothing else to ask for.
    leaving = made.keys() & needed or {TensorRef(last.name, name) for name in last.outputs}
    outside = dict.fromkeys(ref for task in inside for ref in task.inputs.values() if ref.task not in own)
    return Task(
        name=chain.name,
        inputs={str(ref): ref for ref in outside},
        outputs={str(ref): kind for ref, kind in made.items() if ref in leaving},
        variants=(as_variant(graph, chain),),
        for_each=first.for_each,
        retry=all(task.retry for task in inside),
    )


def as_variant(graph: TaskGraph, chain: Chain) -> Variant:
    """The chain's variants as one, of an accuracy relative to the best there are."""
    inside = [graph.tasks[name] for name in chain.tasks]
    chosen = [task.variant(name) for task, name in zip(inside, chain.variants, strict=True)]
    return Variant(
        name=chain.variant,
        accuracy=math.prod(v.accuracy / task.best_accuracy for v, task in zip(chosen, inside, strict=True)),
        template=chosen[-1].template,
        yields={str(TensorRef(chain.tasks[-1], name)): rows for name, rows in chosen[-1].yields.items()},
    )


def _needed(node: Task | PythonStep) -> tuple[TensorRef, ...]:
    """The tensors that it looks at."""
    if isinstance(node, PythonStep):
        return tuple(node.inputs.values())
    over = () if node.for_each is None else (node.for_each,)
    return (*node.inputs.values(), *over, *(() if node.when is None else (node.when.tensor,)))


def _alike(graph: TaskGraph, before: Task, task: Task) -> bool:
    """Whether both are called for the same items, and one call of one makes what one call of the other gets."""
    return (
        before.when is None
        and task.when is None
        and not (before.counts or task.counts)
        and _rows(graph, before) == _rows(graph, task)
        and all(_fits(graph, before, task, name) for name, ref in task.inputs.items() if ref.task == before.name)
    )


def _rows(graph: TaskGraph, task: Task) -> TensorRef | None:
    """The rows that a task is called for; None where it is called once a request."""
    return None if task.for_each is None else graph.row_axis(task.for_each) or task.for_each


def _fits(graph: TaskGraph, before: Task, task: Task, name: str) -> bool:
    """Whether one call's output of the task before is what one call of this one gets, and may vary as it does."""
    made = before.outputs[task.inputs[name].name]
    if made != graph.input_type(task, name):
        return False
    return not _varies(made) or any(_varies(graph.input_type(before, given)) for given in before.inputs)


def _varies(tensor: TensorType) -> bool:
    return any(dim < 0 for dim in tensor.shape)


def _moved(refs: Mapping[str, TensorRef], moved: Mapping[TensorRef, TensorRef]) -> dict[str, TensorRef]:
    return {name: moved.get(ref, ref) for name, ref in refs.items()}


def _redirected(task: Task, moved: Mapping[TensorRef, TensorRef]) -> Task:
    """A task that takes from chains what it took from tasks in them."""
    when = task.when
    return replace(
        task,
        inputs=_moved(task.inputs, moved),
        for_each=moved.get(task.for_each, task.for_each) if task.for_each is not None else None,
        when=replace(when, tensor=moved.get(when.tensor, when.tensor)) if when is not None else None,
    )
