"""A task graph as text for the terminal and as a Mermaid flowchart; `picture` draws it as SVG."""

from collections.abc import Iterator

from jigsaw_triton.graph.model import Task, TaskGraph, TensorRef, TensorType, When


def tensor_words(kind: TensorType) -> str:
    """`FP32 [?, 3, 64, 64]`."""
    return f"{kind.dtype} [{', '.join('?' if size == -1 else str(size) for size in kind.shape)}]"


def condition_words(when: When) -> str:
    """`screen.SCORE > 0.5 (70%)`."""
    bound = f"> {when.above:g}" if when.above is not None else f"< {when.below:g}"
    return f"{when.tensor} {bound} ({when.probability:.0%})"


def variant_words(task: Task) -> str:
    """`2 variants, accuracy 28 to 37.4`."""
    low, high = min(v.accuracy for v in task.variants), task.best_accuracy
    count = f"{len(task.variants)} variant{'s' if len(task.variants) > 1 else ''}"
    return f"{count}, accuracy {high:g}" if low == high else f"{count}, accuracy {low:g} to {high:g}"


def slo_words(graph: TaskGraph) -> str:
    """`p99 within 250 ms, accuracy at least 0.9 for each request`."""
    slo = graph.slo
    scope = "for each request" if slo.accuracy_mode == "floor" else "on average"
    return f"p{slo.percentile:g} within {slo.latency_ms:g} ms, accuracy at least {slo.accuracy:g} {scope}"


def edges(graph: TaskGraph) -> Iterator[tuple[TensorRef, str, str]]:
    """What flows into tasks, in the graph's order: tensor, task, and how (`data`, `row` or `condition`)."""
    for task in graph.tasks.values():
        for ref in dict.fromkeys(task.inputs.values()):
            yield ref, task.name, "row" if graph.iterated(task, ref) else "data"
        if task.for_each is not None and task.for_each not in task.inputs.values():
            yield task.for_each, task.name, "row"
        if task.when is not None:
            yield task.when.tensor, task.name, "condition"


def text(graph: TaskGraph) -> str:
    """The graph as lines for a terminal: inputs, tasks in topological order, outputs."""
    names = [*graph.inputs, *graph.tasks, *graph.outputs]
    width = max(len(name) for name in names)
    lines = [f"{graph.name}: {slo_words(graph)}"]
    lines += [f"  in    {name:{width}}  {tensor_words(value.type)}" for name, value in graph.inputs.items()]
    for task in graph.tasks.values():
        lines.append(f"  task  {task.name:{width}}  {variant_words(task)}")
        indent = " " * (width + 10)
        if task.for_each is not None:
            lines.append(f"{indent}for each row of {task.for_each}")
        if task.when is not None:
            lines.append(f"{indent}when {condition_words(task.when)}")
        lines += [f"{indent}< {key} = {ref}" for key, ref in task.inputs.items()]
        lines += [f"{indent}> {key}  {tensor_words(kind)}" for key, kind in task.outputs.items()]
    for name, ref in graph.outputs.items():
        lines.append(f"  out   {name:{width}}  {ref}  {tensor_words(graph.type_of(ref))}")
    return "\n".join(lines) + "\n"


def mermaid(graph: TaskGraph) -> str:
    """The graph as a Mermaid flowchart; edges that carry rows one by one are thick, conditions are dotted."""
    lines = ["flowchart LR"]
    lines += [f'  in_{name}(["{name}<br>{tensor_words(value.type)}"])' for name, value in graph.inputs.items()]
    for task in graph.tasks.values():
        marks = [f"for each row of {task.for_each}"] if task.for_each is not None else []
        marks += [f"when {_escaped(condition_words(task.when))}"] if task.when is not None else []
        lines.append(f'  task_{task.name}["{"<br>".join([task.name, *marks, variant_words(task)])}"]')
    lines += [f'  out_{name}(["{name}"])' for name in graph.outputs]
    arrows = {"data": "-->", "row": "==>", "condition": "-.->"}
    for ref, task_name, how in edges(graph):
        lines.append(f"  {_source(ref)} {arrows[how]}|{ref.name}| task_{task_name}")
    lines += [f"  {_source(ref)} -->|{ref.name}| out_{name}" for name, ref in graph.outputs.items()]
    return "\n".join(lines) + "\n"


def _source(ref: TensorRef) -> str:
    return f"in_{ref.name}" if ref.is_graph_input else f"task_{ref.task}"


def _escaped(words: str) -> str:
    return words.replace("<", "&lt;").replace(">", "&gt;")
