"""Checks that the tasks of a graph fit together: rows, conditions, and types along edges."""

from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.graph.order import count_paths
from jigsaw_triton.graph.reference import INPUTS, TASKS
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.spec.graph_schema import SCALAR_SHAPE, GraphSpec, TaskEntry
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.words import nearest

Condition = tuple[TensorRef, float | None, float | None]
"""(tensor, above, below) of a condition; tasks with the same condition run for the same requests."""

LIMIT_PATHS = 1024
"""Largest number of paths: the planner has a latency constraint and an accuracy constraint for each."""


def check_tasks(graph: TaskGraph, spec: GraphSpec, report: Report) -> None:
    """Reports mistakes between the tasks of a graph whose references resolve and that has no cycle.

    Args:
        graph: Graph to check, possibly without tasks that have other mistakes.
        spec: Specification from which the graph was built.
        report: Report to which mistakes are added.
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
        hint = f"at most {LIMIT_PATHS} are supported; merge tasks or remove edges"
        report.add(TASKS, f"the graph has {many} paths from its inputs to its outputs", hint)


def _check_condition(graph: TaskGraph, task: Task, path: Path, report: Report) -> None:
    assert task.when is not None
    tensor = task.when.tensor
    kind = graph.type_of(tensor)
    hint = "use a tensor with one number per request: of shape [1], without rows, of a numeric type other than BF16"
    if graph.row_axis(tensor) is not None and kind.shape[0] == -1:
        report.add((*path, "tensor"), f"{tensor} has rows, so a condition cannot use it", hint)
    elif kind.dtype in ("BYTES", "BF16"):
        report.add((*path, "tensor"), f"{tensor} is {_words(kind)}, a type that a condition cannot use", hint)
    elif any(size != 1 for size in kind.shape):
        report.add((*path, "tensor"), f"{tensor} is {_words(kind)}, not a single element", hint)


def _check_iteration(graph: TaskGraph, task: Task, over: TensorRef, path: Path, report: Report) -> bool:
    """Checks the rows over which a task iterates; returns True if the types of one call can be derived from them."""
    for_each = (*path, "for_each")
    kind = graph.type_of(over)
    if kind.shape[0] != -1:
        hint = f"declare its shape with a leading -1 and its variants' yields, or remove for_each from {task.name}"
        report.add(for_each, f"{over} has no varying number of rows: it is {_words(kind)}", hint)
        return False
    if over.task in graph.steps:
        if over.name not in graph.steps[over.task].yields:
            _report_no_yields((*TASKS, over.task), f"step '{over.task}'", over, task.name, report)
    elif not over.is_graph_input:
        _check_yields(graph, over, task.name, report)
    if len(kind.shape) == 1:
        hint = f"declare its shape as {[*kind.shape, 1]}"
        report.add(for_each, f"a row of {over} has no dimensions: the tensor is {_words(kind)}", hint)
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
    message = f"{what} does not estimate the number of rows of {over}, over which {consumer} iterates"
    report.add(path, message, f"add, for example, yields: {{{over.name}: 3.0}}")


def _check_rows(graph: TaskGraph, task: Task, over: TensorRef, path: Path, report: Report) -> None:
    """Checks that each input either shares the rows over which the task iterates, or has no rows."""
    own = _own_condition(task)
    wanted = _conditions(graph, over) - own
    for name, ref in task.inputs.items():
        entry = (*path, "inputs", name)
        if graph.iterated(task, ref):
            if _conditions(graph, ref) - own != wanted:
                hint = "give both the same condition, or iterate over one tensor only"
                message = f"{ref} and {over} may differ in the number of rows, because a condition empties only one"
                report.add(entry, message, hint)
        elif graph.row_axis(ref) is not None:
            hint = f"iterate over {ref}, or join the two in a task without for_each"
            report.add(entry, f"the rows of {ref} are not those of {over}, over which {task.name} iterates", hint)
    if not any(graph.iterated(task, ref) for ref in task.inputs.values()):
        hint = f"add {over} to its inputs, or remove for_each"
        report.add(
            (*path, "for_each"), f"{task.name} iterates over {over}, but none of its inputs is a row of it", hint
        )


def _conditions(graph: TaskGraph, ref: TensorRef) -> frozenset[Condition]:
    """Returns the conditions that must hold for the tensor to have rows."""
    if ref.is_graph_input or ref.task in graph.steps:
        return frozenset()
    task = graph.tasks[ref.task]
    inherited = _conditions(graph, task.for_each) if task.for_each is not None else frozenset()
    return inherited | _own_condition(task)


def _own_condition(task: Task) -> frozenset[Condition]:
    return frozenset({(task.when.tensor, task.when.above, task.when.below)} if task.when is not None else ())


def _check_types(graph: TaskGraph, task: Task | PythonStep, spec: GraphSpec, path: Path, report: Report) -> None:
    """Compares the types that a node declares for its inputs with the types of the tensors that it receives."""
    for name, entry in spec.tasks[task.name].inputs.items():
        actual = graph.input_type(task, name)
        shape = actual.shape if entry.shape is None else tuple(entry.shape)
        wanted = TensorType(entry.dtype or actual.dtype, shape)
        agree = (
            (
                len(shape) == len(actual.shape)
                and all(a == w or -1 in (a, w) for a, w in zip(actual.shape, shape, strict=True))
            )
            if shape
            else actual.shape == SCALAR_SHAPE
        )
        if wanted.dtype != actual.dtype or not agree:
            rows = " per row" if graph.iterated(task, task.inputs[name]) else ""
            message = f"{task.name} expects {_words(wanted)}, but {task.inputs[name]} is {_words(actual)}{rows}"
            report.add((*path, "inputs", name), message, "change one of the two types")


def check_counts(entry: TaskEntry, path: Path, source: SourceMap, report: Report) -> dict[str, str]:
    """Returns the valid counts of a task, and reports those that are not.

    Args:
        entry: Task as written in the document.
        path: Path of the task.
        source: Lines of the document.
        report: Report to which mistakes are added.

    Returns:
        Name of the output with the count -> output whose rows it counts.
    """
    valid = {}
    for name, counted in entry.counts.items():
        count = (*path, "counts", name)
        if name in entry.outputs:
            report.add(count, f"'{name}' is already an output of the model", "give the count another name")
        elif counted not in entry.outputs:
            if (*path, "outputs", counted) not in source:
                hint = nearest(counted, entry.outputs, "outputs")
                report.add(count, f"'{name}' counts the rows of '{counted}', which is not an output", hint)
        elif entry.outputs[counted].served_shape[0] != -1:
            shape = entry.outputs[counted].shape
            hint = "count an output whose shape begins with -1"
            report.add(count, f"{counted} has no varying number of rows: its shape is {shape}", hint)
        else:
            valid[name] = counted
    return valid


def check_inputs(spec: GraphSpec, report: Report) -> None:
    """Reports graph inputs with an estimate of rows but without a varying number of rows."""
    for name, entry in spec.inputs.items():
        if entry.rows is not None and entry.shape[0] != -1:
            hint = "declare a shape that begins with -1, or remove rows"
            report.add(
                (*INPUTS, name, "rows"), f"{name} has no varying number of rows: its shape is {entry.shape}", hint
            )


def _words(kind: TensorType) -> str:
    return f"{kind.dtype} {list(kind.shape)}"
