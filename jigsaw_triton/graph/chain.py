"""Finds chains of tasks that a worker can execute in one call, and replaces each chain in a graph by a single task.

A task may follow another in a chain if this changes only how the tensors travel between the two:

- No other task or step uses the outputs of the first; clients may receive them.
- Everything else that the second needs is available before the first starts, so that nothing waits longer.
- Both are called for the same items: once per request, or once per row of the same rows. Neither is conditional, and
  the gateway does not count the rows of either.
- If the shape of a tensor between them varies, the shape of an input of the first varies too. The inputs of the chain
  then show whether its items can be joined in a batch.

If a worker executes a chain in one call, the gateway sees a graph in which the chain is one task, `first~second`. The
inputs of that task are the tensors that enter the chain, named as in the graph (`inputs.X`); its outputs are those that
leave the chain, named after the task that produces them (`second.Y`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, Variant
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.runtime.chains import joined


@dataclass(frozen=True, slots=True)
class Chain:
    """Tasks that a worker executes in one call, each passing its outputs to the next.

    Attributes:
        tasks: Names of the tasks, at least two, in order.
        variants: Names of the variants that perform them.
    """

    tasks: tuple[str, ...]
    variants: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the single task that replaces the chain."""
        return joined(self.tasks)

    @property
    def variant(self) -> str:
        """Name of that task's only variant."""
        return joined(self.variants)


def followers(graph: TaskGraph) -> dict[str, str]:
    """Returns, for each task that has one, the task that may follow it in a chain; no task follows two."""
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
    """Returns the maximal sequences of tasks that follow each other.

    Args:
        after: Task -> the task that follows it: a part of `followers`.
    """

    def starting_at(task: str) -> tuple[str, ...]:
        return (task, *(starting_at(after[task]) if task in after else ()))

    return tuple(starting_at(task) for task in after if task not in after.values())


def with_chains(graph: TaskGraph, chains: Iterable[Chain]) -> TaskGraph:
    """Returns the graph in which each chain is one task, at the position of the chain's first task.

    Args:
        graph: Graph that has the chains.
        chains: Chains that share no task.
    """
    by_first = {chain.tasks[0]: chain for chain in chains}
    by_task = {task: chain for chain in by_first.values() for task in chain.tasks}
    moved = {
        TensorRef(name, output): TensorRef(chain.name, str(TensorRef(name, output)))
        for name, chain in by_task.items()
        for output in graph.tasks[name].outputs
    }
    tasks: dict[str, Task] = {}
    for name, task in graph.tasks.items():
        if name in by_first:
            task = as_task(graph, by_first[name])
        elif name in by_task:
            continue
        tasks[task.name] = _redirected(task, moved)
    return replace(
        graph,
        tasks=tasks,
        steps={name: replace(step, inputs=_moved(step.inputs, moved)) for name, step in graph.steps.items()},
        outputs=_moved(graph.outputs, moved),
    )


def as_task(graph: TaskGraph, chain: Chain) -> Task:
    """Returns the single task that replaces the chain in the graph."""
    inside = [graph.tasks[name] for name in chain.tasks]
    first, last = inside[0], inside[-1]
    own = frozenset(chain.tasks)
    others = (node for node in graph.in_order() if node.name not in own)
    needed = frozenset([*graph.outputs.values(), *(ref for node in others for ref in _needed(node))])
    made = {TensorRef(task.name, name): kind for task in inside for name, kind in task.outputs.items()}
    # If nothing uses any output of the chain, the task still needs outputs: those of the last task.
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
    """Returns the variant that replaces the chain's variants; its accuracy is relative to the tasks' best variants."""
    inside = [graph.tasks[name] for name in chain.tasks]
    chosen = [task.variant(name) for task, name in zip(inside, chain.variants, strict=True)]
    return Variant(
        name=chain.variant,
        accuracy=math.prod(v.accuracy / task.best_accuracy for v, task in zip(chosen, inside, strict=True)),
        template=chosen[-1].template,
        yields={str(TensorRef(chain.tasks[-1], name)): rows for name, rows in chosen[-1].yields.items()},
    )


def _needed(node: Task | PythonStep) -> tuple[TensorRef, ...]:
    """Returns all tensors that a node reads: inputs, iterated rows and the tensor of its condition."""
    if isinstance(node, PythonStep):
        return tuple(node.inputs.values())
    over = () if node.for_each is None else (node.for_each,)
    return (*node.inputs.values(), *over, *(() if node.when is None else (node.when.tensor,)))


def _alike(graph: TaskGraph, before: Task, task: Task) -> bool:
    """Returns True if both are called for the same items, and the tensors between them have equal types per call."""
    return (
        before.when is None
        and task.when is None
        and not (before.counts or task.counts)
        and _rows(graph, before) == _rows(graph, task)
        and all(_fits(graph, before, task, name) for name, ref in task.inputs.items() if ref.task == before.name)
    )


def _rows(graph: TaskGraph, task: Task) -> TensorRef | None:
    """Returns the tensor over whose rows a task iterates; None if the task is called once per request."""
    return None if task.for_each is None else graph.row_axis(task.for_each) or task.for_each


def _fits(graph: TaskGraph, before: Task, task: Task, name: str) -> bool:
    """Returns True if an input of `task` has the type of `before`'s output, and a shape that may vary in a chain."""
    made = before.outputs[task.inputs[name].name]
    if made != graph.input_type(task, name):
        return False
    return not _varies(made) or any(_varies(graph.input_type(before, given)) for given in before.inputs)


def _varies(tensor: TensorType) -> bool:
    return any(dim < 0 for dim in tensor.shape)


def _moved(refs: Mapping[str, TensorRef], moved: Mapping[TensorRef, TensorRef]) -> dict[str, TensorRef]:
    return {name: moved.get(ref, ref) for name, ref in refs.items()}


def _redirected(task: Task, moved: Mapping[TensorRef, TensorRef]) -> Task:
    """Returns the task with its references to tasks in chains replaced by references to the chains."""
    when = task.when
    return replace(
        task,
        inputs=_moved(task.inputs, moved),
        for_each=moved.get(task.for_each, task.for_each) if task.for_each is not None else None,
        when=replace(when, tensor=moved.get(when.tensor, when.tensor)) if when is not None else None,
    )
