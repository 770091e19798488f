"""What must hold between the tasks of a graph: rows, conditions, types along edges."""

from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, TensorRef, TensorType
from jigsaw_triton.graph.order import count_paths
from jigsaw_triton.graph.reference import INPUTS, TASKS
from jigsaw_triton.spec.schema import GraphSpec, TaskEntry
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.words import nearest

Condition = tuple[TensorRef, float | None, float | None]
"""Tensor, above, below: tasks that share it run for the same requests."""

LIMIT_PATHS = 1024
"""Each path is a latency constraint and an accuracy constraint of the planner."""


def check_tasks(graph: TaskGraph, spec: GraphSpec, report: Report) -> None:
    """Reports what is wrong between the tasks of a graph whose references are right and whose order exists.

    Args:
        graph: Perhaps without the tasks that something else is wrong with.
        spec: What it was made from.
        report: Where mistakes go.
    """
    for task in graph.tasks.values():
        path = (*TASKS, task.name)
        if task.when is not None:
            _check_condition(graph, task, (*path, "when"), report)
        if task.for_each is None or _check_iteration(graph, task, task.for_each, path, report):
            _check_types(graph, task, spec, path, report)
    for step in graph.steps.values():
        _check_types(graph, step, spec, (*TASKS, step.name), report)
    many = count_paths({task.name: graph.before(task) for task in graph.tasks.values()})
    if many > LIMIT_PATHS:
        hint = f"at most {LIMIT_PATHS} are supported; join tasks or remove edges"
        report.add(TASKS, f"the graph has {many} paths from its inputs to its outputs", hint)


def _check_condition(graph: TaskGraph, task: Task, path: Path, report: Report) -> None:
    assert task.when is not None
    tensor = task.when.tensor
    kind = graph.type_of(tensor)
    hint = "a condition reads one number a request: a numeric tensor of shape [1] without rows, not of BF16"
    if graph.row_axis(tensor) is not None and kind.shape[0] == -1:
        report.add((*path, "tensor"), f"{tensor} has rows", hint)
    elif kind.dtype in ("BYTES", "BF16"):
        report.add((*path, "tensor"), f"{tensor} is {_words(kind)}, not a number that can be read", hint)
    elif any(size != 1 for size in kind.shape):
        report.add((*path, "tensor"), f"{tensor} is {_words(kind)}, not one element", hint)


def _check_iteration(graph: TaskGraph, task: Task, over: TensorRef, path: Path, report: Report) -> bool:
    """Whether the rows that the task iterates over are right, so that the types of one call are known."""
    here = (*path, "for_each")
    kind = graph.type_of(over)
    if kind.shape[0] != -1:
        hint = f"declare its shape with a leading -1 and its variants' yields, or remove for_each from {task.name}"
        report.add(here, f"{over} has no varying number of rows: it is {_words(kind)}", hint)
        return False
    if over.task in graph.steps:
        if over.name not in graph.steps[over.task].yields:
            _report_no_yields((*TASKS, over.task), f"step '{over.task}'", over, task.name, report)
    elif not over.is_graph_input:
        _check_yields(graph, over, task.name, report)
    if len(kind.shape) == 1:
        hint = f"declare it as {[*kind.shape, 1]}"
        report.add(here, f"a row of {over} has no dimension: it is {_words(kind)}", hint)
        return False
    _check_rows(graph, task, over, path, report)
    return True


def _check_yields(graph: TaskGraph, over: TensorRef, consumer: str, report: Report) -> None:
    if not graph.makes_rows(over):
        return
    for index, variant in enumerate(graph.tasks[over.task].variants):
        if over.name not in variant.yields:
            path = (*TASKS, over.task, "variants", index)
            _report_no_yields(path, f"variant '{variant.name}'", over, consumer, report)


def _report_no_yields(path: Path, what: str, over: TensorRef, consumer: str, report: Report) -> None:
    message = f"{what} gives no estimate of the rows of {over}, over which {consumer} iterates"
    report.add(path, message, f"add yields: {{{over.name}: 3.0}}")


def _check_rows(graph: TaskGraph, task: Task, over: TensorRef, path: Path, report: Report) -> None:
    """Inputs that come by row must have the rows that are iterated over; others must have none of their own."""
    own = _own_condition(task)
    wanted = _conditions(graph, over) - own
    for name, ref in task.inputs.items():
        here = (*path, "inputs", name)
        if graph.iterated(task, ref):
            if _conditions(graph, ref) - own != wanted:
                hint = "give the tasks the same condition, or iterate over the tensor alone"
                report.add(here, f"{ref} and {over} differ in rows: a condition empties only one of them", hint)
        elif graph.row_axis(ref) is not None:
            hint = f"iterate over {ref}, or join the two in a task without for_each"
            report.add(here, f"{ref} has rows of another kind than {over}, over which {task.name} iterates", hint)
    if not any(graph.iterated(task, ref) for ref in task.inputs.values()):
        hint = f"give it {over} as an input, or remove for_each"
        report.add((*path, "for_each"), f"{task.name} iterates over {over} but takes no row of it", hint)


def _conditions(graph: TaskGraph, ref: TensorRef) -> frozenset[Condition]:
    """The conditions that must hold for the tensor to have rows."""
    if ref.is_graph_input or ref.task in graph.steps:
        return frozenset()
    task = graph.tasks[ref.task]
    inherited = _conditions(graph, task.for_each) if task.for_each is not None else frozenset()
    return inherited | _own_condition(task)


def _own_condition(task: Task) -> frozenset[Condition]:
    return frozenset({(task.when.tensor, task.when.above, task.when.below)} if task.when is not None else ())


def _check_types(graph: TaskGraph, task: Task | PythonStep, spec: GraphSpec, path: Path, report: Report) -> None:
    """Compares what a task or step says it expects with what arrives."""
    for name, entry in spec.tasks[task.name].inputs.items():
        actual = graph.input_type(task, name)
        wanted = TensorType(entry.dtype or actual.dtype, tuple(entry.shape or actual.shape))
        agree = len(wanted.shape) == len(actual.shape) and all(
            a == w or -1 in (a, w) for a, w in zip(actual.shape, wanted.shape, strict=True)
        )
        if wanted.dtype != actual.dtype or not agree:
            rows = ", a row at a time" if graph.iterated(task, task.inputs[name]) else ""
            message = f"{task.name} expects {_words(wanted)} but {task.inputs[name]} gives {_words(actual)}{rows}"
            report.add((*path, "inputs", name), message, "make the two agree")


def check_counts(entry: TaskEntry, path: Path, source: SourceMap, report: Report) -> dict[str, str]:
    """The outputs of a task that count rows; reports those that are another, or count what has none.

    Args:
        entry: The task.
        path: Of the task.
        source: Of the document.
        report: Where mistakes go.
    """
    right = {}
    for name, of in entry.counts.items():
        here = (*path, "counts", name)
        if name in entry.outputs:
            report.add(here, f"'{name}' is an output of the model", "give the count another name")
        elif of not in entry.outputs:
            if (*path, "outputs", of) not in source:
                report.add(here, f"it counts '{of}', which is no output", nearest(of, entry.outputs, "outputs"))
        elif entry.outputs[of].shape[0] != -1:
            hint = "count one whose shape begins with -1"
            report.add(here, f"{of} has no varying number of rows: its shape is {entry.outputs[of].shape}", hint)
        else:
            right[name] = of
    return right


def check_inputs(spec: GraphSpec, report: Report) -> None:
    """Reports planning estimates of rows for graph inputs that have no varying number of them."""
    for name, entry in spec.inputs.items():
        if entry.rows is not None and entry.shape[0] != -1:
            hint = "declare a shape that begins with -1, or remove rows"
            report.add(
                (*INPUTS, name, "rows"), f"{name} has no varying number of rows: its shape is {entry.shape}", hint
            )


def _words(kind: TensorType) -> str:
    return f"{kind.dtype} {list(kind.shape)}"
