"""Draws a task graph as text for the terminal and as a Mermaid flowchart; `picture` draws it as SVG."""

from collections.abc import Iterator

from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, When
from jigsaw_triton.graph.tensors import TensorRef, TensorType


def tensor_words(kind: TensorType) -> str:
    """Formats a tensor's type: `FP32 [?, 3, 64, 64]`."""
    return f"{kind.dtype} [{', '.join('?' if size == -1 else str(size) for size in kind.shape)}]"


def condition_words(when: When) -> str:
    """Formats a condition: `screen.SCORE > 0.5 (70%)`."""
    bound = f"> {when.above:g}" if when.above is not None else f"< {when.below:g}"
    return f"{when.tensor} {bound} ({when.probability:.0%})"


def maker_words(node: Task | PythonStep) -> str:
    """Summarises the implementation of a node: `2 variants, accuracy 28 to 37.4` or `python steps/crop.py, 1 ms`."""
    return _variant_words(node) if isinstance(node, Task) else f"python {node.file}, {node.latency_ms:g} ms"


def _variant_words(task: Task) -> str:
    low, high = min(v.accuracy for v in task.variants), task.best_accuracy
    count = f"{len(task.variants)} variant{'s' if len(task.variants) > 1 else ''}"
    return f"{count}, accuracy {high:g}" if low == high else f"{count}, accuracy {low:g} to {high:g}"


def slo_words(graph: TaskGraph) -> str:
    """Formats the SLO of a graph: `p99 within 250 ms, accuracy at least 0.9 for each request`."""
    slo = graph.slo
    scope = "for each request" if slo.accuracy_mode == "floor" else "on average"
    return f"p{slo.percentile:g} within {slo.latency_ms:g} ms, accuracy at least {slo.accuracy:g} {scope}"


def mark_words(node: Task | PythonStep) -> list[str]:
    """Returns remarks on when a node runs: `for each row of detect.CROPS`, `when screen.SCORE > 0.5 (70%)`."""
    if isinstance(node, PythonStep):
        return []
    rows = [f"for each row of {node.for_each}"] if node.for_each is not None else []
    return rows + ([f"when {condition_words(node.when)}"] if node.when is not None else [])


def edges(graph: TaskGraph) -> Iterator[tuple[TensorRef, str, str]]:
    """Yields the edges into tasks and Python steps, in order: tensor, node, and kind (`data`, `row` or `condition`)."""
    for node in graph.in_order():
        for ref in dict.fromkeys(node.inputs.values()):
            yield ref, node.name, "row" if graph.iterated(node, ref) else "data"
        if isinstance(node, PythonStep):
            continue
        if node.for_each is not None and node.for_each not in node.inputs.values():
            yield node.for_each, node.name, "row"
        if node.when is not None:
            yield node.when.tensor, node.name, "condition"


def text(graph: TaskGraph) -> str:
    """Formats the graph for a terminal: inputs, nodes in topological order, outputs."""
    names = [*graph.inputs, *graph.tasks, *graph.steps, *graph.outputs]
    width = max(len(name) for name in names)
    lines = [f"{graph.name}: {slo_words(graph)}"]
    lines += [f"  in    {name:{width}}  {tensor_words(value.type)}" for name, value in graph.inputs.items()]
    for node in graph.in_order():
        lines.append(f"  {'task' if isinstance(node, Task) else 'step'}  {node.name:{width}}  {maker_words(node)}")
        indent = " " * (width + 10)
        lines += [f"{indent}{mark}" for mark in mark_words(node)]
        lines += [f"{indent}< {key} = {ref}" for key, ref in node.inputs.items()]
        lines += [f"{indent}> {key}  {tensor_words(kind)}" for key, kind in node.outputs.items()]
        if isinstance(node, Task):
            lines += [f"{indent}> {key}  rows of {counted}" for key, counted in node.counts.items()]
    for name, ref in graph.outputs.items():
        lines.append(f"  out   {name:{width}}  {ref}  {tensor_words(graph.type_of(ref))}")
    return "\n".join(lines) + "\n"


def mermaid(graph: TaskGraph) -> str:
    """Formats the graph as a Mermaid flowchart; edges over whose rows a task iterates are thick, conditions dotted."""
    lines = ["flowchart LR"]
    lines += [f'  in_{name}(["{name}<br>{tensor_words(value.type)}"])' for name, value in graph.inputs.items()]
    for node in graph.in_order():
        words = map(_escaped, (node.name, *mark_words(node), maker_words(node)))
        lines.append(f'  task_{node.name}["{"<br>".join(words)}"]')
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
