"""Building graphs in Python. They pass the same checks as files and raise the same errors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from jigsaw_triton.api.call_sites import CallSites, call_site, position
from jigsaw_triton.api.files import variant_templates
from jigsaw_triton.errors import Diagnostic, InputError
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import Target, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.spec.entries import API_VERSION
from jigsaw_triton.spec.load import load_graph_data
from jigsaw_triton.spec.source import Path as Entry


class GraphBuilder:
    """Builds a task graph, with the same checks as a graph.yaml. Mistakes have the file and line of the call.

    Args:
        name: Model name for clients.
        latency_ms: End-to-end latency that the graph promises, in milliseconds, at `percentile`.
        percentile: Percentage of the requests whose latency is within `latency_ms`.
        accuracy: Accuracy that the graph promises, relative to the best variant of each task, multiplied along every
            path.
        accuracy_mode: `floor`: the accuracy holds for each request; `mean`: on average over requests.
        folder: Folder of model files, steps and samples; the current folder by default.
        target: Form in which the graph is served; `auto` is one compiled front.
        overload: `refuse`: requests that cannot meet the SLO are refused at once; `queue`: they wait.
        priority: Graphs with a larger number get what they need first if the cluster cannot carry all load.
        weight: Weight among graphs of one priority: with twice the weight, a graph sheds half as large a part of its
            load.

    Examples:
        >>> import jigsaw_triton as jt
        >>> graph = (
        ...     jt.GraphBuilder("traffic", latency_ms=250, accuracy=0.7)
        ...     .input("FRAME", jt.TensorType("UINT8", (-1, -1, 3)))
        ...     .task(
        ...         "detect",
        ...         inputs={"IMAGE": "inputs.FRAME"},
        ...         outputs={"CROPS": jt.TensorType("FP32", (-1, 3, 64, 64))},
        ...     )
        ...     .variant("n", accuracy=28.0, template="emulated", yields={"CROPS": 2.6})
        ...     .variant("s", accuracy=37.4, template="emulated", yields={"CROPS": 5.5})
        ...     .task(
        ...         "classify",
        ...         for_each="detect.CROPS",
        ...         inputs={"CROP": "detect.CROPS"},
        ...         outputs={"LABEL": jt.TensorType("INT64", (1,))},
        ...     )
        ...     .variant("b0", accuracy=77.7, template="emulated")
        ...     .output("LABELS", "classify.LABEL")
        ...     .build()
        ... )
        >>> graph.paths()
        (('detect', 'classify'),)
    """

    def __init__(
        self,
        name: str,
        *,
        latency_ms: float,
        percentile: float = 99.0,
        accuracy: float = 1.0,
        accuracy_mode: Literal["floor", "mean"] = "floor",
        folder: str | Path = ".",
        target: Target = "auto",
        overload: Literal["refuse", "queue"] = "refuse",
        priority: int = 0,
        weight: float = 1.0,
    ) -> None:
        self._folder = Path(folder)
        self._tasks: dict[str, Any] = {}
        self._last_task: str | None = None
        self._lines: dict[Entry, int] = {}
        self._files: dict[Entry, str] = {}
        self._problems: list[Diagnostic] = []
        slo = {
            "latency_ms": latency_ms,
            "percentile": percentile,
            "accuracy": accuracy,
            "accuracy_mode": accuracy_mode,
        }
        self._spec: dict[str, Any] = {"slo": slo, "inputs": {}, "outputs": {}, "tasks": self._tasks}
        self._spec |= {"target": target, "overload": overload, "priority": priority, "weight": weight}
        self._document = {
            "apiVersion": API_VERSION,
            "kind": "TaskGraph",
            "metadata": {"name": name},
            "spec": self._spec,
        }
        self._record((), self._document)

    def input(
        self, name: str, tensor: TensorType, *, rows: float | None = None, sample: str | Path | None = None
    ) -> Self:
        """Adds an input of the graph.

        Args:
            name: Name of the input.
            tensor: Type for one request, without a batch dimension.
            rows: Expected leading dimension, if a task iterates over this input.
            sample: Path of a .npy file with the tensor of a real request, relative to the folder of the graph.
        """
        entry = _tensor(tensor) | ({"rows": rows} if rows is not None else {})
        self._add(("spec", "inputs", name), entry)
        if sample is not None:
            self._spec.setdefault("sample", {})
            self._add(("spec", "sample", name), str(sample))
        return self

    def output(self, name: str, tensor: str) -> Self:
        """Adds an output of the graph.

        Args:
            name: Name of the output for clients.
            tensor: Reference to the tensor: `task.OUTPUT`.
        """
        self._add(("spec", "outputs", name), tensor)
        return self

    def task(
        self,
        name: str,
        *,
        inputs: Mapping[str, str | Mapping[str, Any]],
        outputs: Mapping[str, TensorType],
        for_each: str | None = None,
        when: str | None = None,
        above: float | None = None,
        below: float | None = None,
        probability: float = 1.0,
        counts: Mapping[str, str] | None = None,
        retry: Literal["once", "never"] = "once",
    ) -> Self:
        """Adds a task that models can do. Calls of `variant` add the models.

        Args:
            name: Name of the task.
            inputs: Input of the models -> reference to a tensor, `task.OUTPUT` or `inputs.NAME`, or a mapping with the
                reference as `from` and the type that the models expect as `dtype` and `shape`.
            outputs: Output of the models -> type for one call.
            for_each: Reference to the tensor whose rows the task is called for, one call a row.
            when: Reference to the tensor that decides whether the task runs: numeric, one element a request.
            above: Bound of `when`: the task runs if the element is greater.
            below: Bound of `when`: the task runs if the element is less.
            probability: Expected share of requests for which the task runs.
            counts: Name of a further output -> output of the models whose rows it counts.
            retry: `never` if a call must not be repeated that may have been executed.
        """
        entry: dict[str, Any] = {"inputs": {**inputs}, "outputs": {n: _tensor(kind) for n, kind in outputs.items()}}
        if for_each is not None:
            entry["for_each"] = for_each
        if when is not None:
            bounds = {"above": above, "below": below}
            entry["when"] = {"tensor": when, "probability": probability}
            entry["when"] |= {key: bound for key, bound in bounds.items() if bound is not None}
        entry |= {"counts": dict(counts)} if counts else {}
        entry |= {"retry": retry} if retry != "once" else {}
        self._add(("spec", "tasks", name), entry)
        self._last_task = name
        return self

    def variant(
        self,
        name: str,
        *,
        accuracy: float,
        template: str,
        artifacts: Mapping[str, str | Path] | None = None,
        parameters: Mapping[str, str | float | bool] | None = None,
        yields: Mapping[str, float] | None = None,
    ) -> Self:
        """Adds a variant to the task that was added last.

        Args:
            name: Name of the variant, unique in its task.
            accuracy: Accuracy in any unit that the variants of the task share; higher is better.
            template: Name of a model template: `onnxruntime`, `torch`, `python` or `emulated`.
            artifacts: File name in the model's version folder -> path relative to the folder of the graph.
            parameters: Parameters of the model.
            yields: Output with rows -> expected rows of one call.

        Raises:
            InputError: No task was added before.
        """
        if self._last_task is None:
            raise InputError(f"the variant {name} has no task", where=call_site(), hint="call task(...) before")
        path: Entry = ("spec", "tasks", self._last_task)
        task = self._tasks[self._last_task]
        entry = {
            "name": name,
            "accuracy": accuracy,
            "template": template,
            "artifacts": {file: str(source) for file, source in (artifacts or {}).items()},
            "parameters": dict(parameters or {}),
            "yields": dict(yields or {}),
        }
        if "variants" not in task:
            task["variants"] = []
            self._record((*path, "variants"), task["variants"])
        task["variants"].append(entry)
        self._record((*path, "variants", len(task["variants"]) - 1), entry)
        return self

    def step(
        self,
        name: str,
        *,
        python: str | Path,
        inputs: Mapping[str, str],
        outputs: Mapping[str, TensorType],
        latency_ms: float | None = None,
        yields: Mapping[str, float] | None = None,
        retry: Literal["once", "never"] = "once",
    ) -> Self:
        """Adds a Python step: code of the user's own that runs on the host's processors, once for each request.

        Args:
            name: Name of the step.
            python: Path of a file with a function `step`, relative to the folder of the graph.
            inputs: Parameter of the function -> reference to a tensor: `task.OUTPUT`, or `inputs.NAME`.
            outputs: Output -> type for one request.
            latency_ms: Milliseconds of the SLO that are kept for the step; 1 by default.
            yields: Output with rows -> expected rows.
            retry: `never` if a call must not be repeated that may have been executed.
        """
        entry: dict[str, Any] = {
            "python": str(python),
            "inputs": dict(inputs),
            "outputs": {key: _tensor(kind) for key, kind in outputs.items()},
        }
        entry |= {"latency_ms": latency_ms} if latency_ms is not None else {}
        entry |= {"yields": dict(yields)} if yields else {}
        entry |= {"retry": retry} if retry != "once" else {}
        self._add(("spec", "tasks", name), entry)
        self._last_task = name
        return self

    def build(self, *, require_files: bool = False) -> TaskGraph:
        """Checks the graph and returns it.

        Args:
            require_files: True if model files and samples must exist.

        Raises:
            SpecError: There are mistakes; the error has a diagnostic for each, with file and line of the call.
        """
        source = CallSites(self._files[()], dict(self._lines), dict(self._files))
        loaded = load_graph_data(self._document, source=source, folder=self._folder)
        loaded = replace(loaded, problems=(*self._problems, *loaded.problems))
        return build_graph(loaded, templates=variant_templates(), require_files=require_files)

    def _add(self, path: Entry, entry: Any) -> None:
        """Adds an entry to the document; an entry that exists already is a mistake."""
        holder: Any = self._document
        for key in path[:-1]:
            holder = holder[key]
        if path[-1] in holder:
            file, line = position()
            hint = f"keep one; the first is on line {self._lines[path]}"
            self._problems.append(Diagnostic(file, line, f"'{path[-1]}' is added twice", hint))
            return
        holder[path[-1]] = entry
        if path[:-1] not in self._lines:
            self._record(path[:-1], {})
        self._record(path, entry)

    def _record(self, path: Entry, entry: Any) -> None:
        """Records the position of the user's call for an entry and everything in it."""
        self._files[path], self._lines[path] = position()
        children = entry.items() if isinstance(entry, dict) else enumerate(entry) if isinstance(entry, list) else ()
        for key, value in children:
            self._record((*path, key), value)


def _tensor(tensor: TensorType) -> dict[str, Any]:
    shape: Sequence[int] = tensor.shape
    return {"dtype": tensor.dtype, "shape": list(shape)}
