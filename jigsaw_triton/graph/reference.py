"""Resolves references to tensors as users write them: `task.OUTPUT` and `inputs.NAME`."""

import re
from collections.abc import Collection

from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.spec.graph_schema import GraphSpec
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.words import nearest, shown

INPUTS: Path = ("spec", "inputs")
OUTPUTS: Path = ("spec", "outputs")
TASKS: Path = ("spec", "tasks")

_FORM = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\.([A-Za-z][A-Za-z0-9_-]*)")


class References:
    """Resolves references, and reports those that do not name a tensor.

    Args:
        spec: Specification of the graph.
        source: Lines of the file. An entry of the file that `spec` lacks was dropped because of another mistake, so
            references to it are not reported.
        dropped: Paths of the dropped entries.
        report: Report to which mistakes are added.
    """

    def __init__(self, spec: GraphSpec, source: SourceMap, dropped: Collection[Path], report: Report) -> None:
        self._spec = spec
        self._source = source
        self._inputs_known = INPUTS not in dropped
        self._report = report
        self.unresolved: set[str] = set()
        """Task names of the references that did not resolve: a task, `inputs`, or "" for text that is no reference."""

    def resolve(self, text: str, path: Path) -> TensorRef | None:
        """Returns the tensor that `text` names.

        Args:
            text: Reference as written.
            path: Path of the entry that contains it.

        Returns:
            The tensor; None, after the mistake has been reported, if there is no such tensor.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            hint = f"write task.OUTPUT, or {GRAPH_INPUTS}.NAME for an input of the graph"
            self._report.add(path, f"{shown(text)} is not a reference to a tensor", hint)
            self.unresolved.add("")
            return None
        ref = TensorRef(match[1], match[2])
        if self._known(ref):
            return ref
        self.unresolved.add(ref.task)
        self._explain(ref, path)
        return None

    def _known(self, ref: TensorRef) -> bool:
        if ref.is_graph_input:
            return ref.name in self._spec.inputs
        return ref.task in self._spec.tasks and ref.name in self._outputs(ref.task)

    def _outputs(self, task: str) -> tuple[str, ...]:
        entry = self._spec.tasks[task]
        return (*entry.outputs, *entry.counts)

    def _explain(self, ref: TensorRef, path: Path) -> None:
        spec = self._spec
        owner = (*TASKS, ref.task)
        if ref.is_graph_input:
            if self._inputs_known and (*INPUTS, ref.name) not in self._source:
                hint = nearest(ref.name, spec.inputs, "inputs of the graph")
                self._report.add(path, f"'{ref}': the graph has no input '{ref.name}'", hint)
        elif ref.task in spec.tasks:
            if not any((*owner, kind, ref.name) in self._source for kind in ("outputs", "counts")):
                hint = nearest(ref.name, self._outputs(ref.task), f"outputs of {ref.task}")
                self._report.add(path, f"'{ref}': task '{ref.task}' has no output '{ref.name}'", hint)
        elif owner not in self._source:
            hint = nearest(ref.task, [*spec.tasks, GRAPH_INPUTS], "known tasks")
            self._report.add(path, f"'{ref}': there is no task '{ref.task}'", hint)
