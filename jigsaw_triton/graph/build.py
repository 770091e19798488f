"""Builds the task graph from the document of a graph.yaml, and reports every mistake at once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from jigsaw_triton.graph.accuracies import build_combinations, build_labels
from jigsaw_triton.graph.check import check_counts, check_inputs, check_tasks
from jigsaw_triton.graph.model import GraphInput, PythonStep, Slo, Task, TaskGraph, When
from jigsaw_triton.graph.order import cycles, topological_order
from jigsaw_triton.graph.python_steps import build_step, check_kind, check_time
from jigsaw_triton.graph.reference import INPUTS, OUTPUTS, TASKS, References
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.graph.variants import Files, build_variants
from jigsaw_triton.spec.graph_schema import GraphDocument, GraphSpec, TaskEntry, WhenEntry
from jigsaw_triton.spec.load import Loaded
from jigsaw_triton.spec.source import Path, Report
from jigsaw_triton.spec.words import nearest, shown

RESERVED_PREFIX = "JIGSAW_"
"""Prefix of the names of tensors that fronts, models and steps add to a task's own tensors."""

Node = Task | PythonStep


def build_graph(loaded: Loaded[GraphDocument], *, templates: Collection[str], require_files: bool = False) -> TaskGraph:
    """Builds the task graph of a document.

    Args:
        loaded: Document that `spec.load.load_graph` returned.
        templates: Names of the known variant templates.
        require_files: True if artifacts and samples must exist already; planning does not need them.

    Returns:
        A valid graph: all references resolve, there is no cycle, and types and rows agree along every edge.

    Raises:
        SpecError: The document has mistakes of structure or meaning.
    """
    report = Report(loaded.source, loaded.problems)
    graph = _Builder(loaded, frozenset(templates), require_files, report).build()
    report.raise_if_any()
    return graph


@dataclass(frozen=True, slots=True)
class _Builder:
    loaded: Loaded[GraphDocument]
    templates: frozenset[str]
    require_files: bool
    report: Report

    def build(self) -> TaskGraph:
        """Builds the graph of the nodes without mistakes, and reports the mistakes of the others."""
        document = self.loaded.document
        spec = document.spec
        references = References(spec, self.loaded.source, self.loaded.dropped, self.report)
        files = Files(
            self.loaded.files,
            FilePath(self.loaded.source.file).parent,
            required=self.require_files,
            report=self.report,
        )
        nodes = {name: self._node(name, entry, references, files) for name, entry in spec.tasks.items()}
        ordered = self._ordered(nodes)
        outputs = self._references(spec.outputs, OUTPUTS, references)
        graph = TaskGraph(
            name=document.metadata.name,
            slo=Slo(spec.slo.latency_ms, spec.slo.percentile, spec.slo.accuracy, spec.slo.accuracy_mode),
            inputs={
                name: GraphInput(TensorType(entry.dtype, tuple(entry.shape)), 1.0 if entry.rows is None else entry.rows)
                for name, entry in spec.inputs.items()
            },
            outputs=outputs,
            tasks={node.name: node for node in ordered if isinstance(node, Task)},
            target=spec.target,
            folder=self.loaded.folder,
            samples=self._samples(spec, files),
            priority=spec.priority,
            weight=spec.weight,
            steps={node.name: node for node in ordered if isinstance(node, PythonStep)},
            overload=spec.overload,
            labels=build_labels(spec, files, self.report),
            combinations=build_combinations(spec, self.report),
        )
        check_inputs(spec, self.report)
        check_tasks(graph, spec, self.report)
        check_time(graph, spec, self.report)
        if not any(isinstance(node, Task) for node, _ in nodes.values()):
            self.report.add(TASKS, "all tasks are Python steps", "add a task with variants")
        if not self.loaded.dropped:
            self._check_use(spec, {n: node for n, (node, _) in nodes.items()}, outputs, references.unresolved)
        return graph

    def _node(self, name: str, entry: TaskEntry, references: References, files: Files) -> tuple[Node, bool]:
        """Builds a task or step from the references that resolve.

        Returns:
            The node, and True if all its references resolved and none of its entries was dropped.
        """
        path = (*TASKS, name)
        self._check_names(name, entry, path)
        check_kind(name, entry, self.loaded.source, self.report)
        inputs = {key: value.source for key, value in entry.inputs.items()}
        resolved = self._references(inputs, (*path, "inputs"), references)
        for_each = None if entry.for_each is None else references.resolve(entry.for_each, (*path, "for_each"))
        when = None if entry.when is None else self._when(entry.when, (*path, "when"), references)
        node: Node
        if entry.python is not None:
            node = build_step(name, entry, resolved, self.loaded.steps, files, self.loaded.source, self.report)
        else:
            node = Task(
                name=name,
                inputs=resolved,
                outputs={key: TensorType(value.dtype, value.served_shape) for key, value in entry.outputs.items()},
                variants=build_variants(
                    entry,
                    path,
                    templates=self.templates,
                    files=files,
                    configs=self.loaded.configs,
                    source=self.loaded.source,
                    report=self.report,
                ),
                for_each=for_each,
                when=when,
                counts=check_counts(entry, path, self.loaded.source, self.report),
                retry=entry.retry == "once",
                scalar_inputs=frozenset(key for key, value in entry.inputs.items() if value.shape == []),
                scalar_outputs=frozenset(key for key, value in entry.outputs.items() if value.shape == []),
            )
        lost = (
            len(resolved) < len(inputs)
            or (entry.for_each is not None and for_each is None)
            or (entry.when is not None and when is None)
        )
        damaged = any(dropped[: len(path)] == path for dropped in self.loaded.dropped)
        return node, not lost and not damaged

    def _references(self, texts: Mapping[str, str], path: Path, references: References) -> dict[str, TensorRef]:
        found = {name: references.resolve(text, (*path, name)) for name, text in texts.items()}
        return {name: ref for name, ref in found.items() if ref is not None}

    def _when(self, entry: WhenEntry, path: Path, references: References) -> When | None:
        if (entry.above is None) == (entry.below is None):
            both = "both 'above' and 'below'" if entry.above is not None else "neither 'above' nor 'below'"
            self.report.add(path, f"the condition has {both}", "write exactly one of the two")
        tensor = references.resolve(entry.tensor, (*path, "tensor"))
        return When(tensor, entry.above, entry.below, entry.probability) if tensor is not None else None

    def _check_names(self, name: str, entry: TaskEntry, path: Path) -> None:
        if name == GRAPH_INPUTS:
            hint = f"rename it, because {GRAPH_INPUTS}.NAME refers to an input of the graph"
            self.report.add(path, f"a task cannot be named '{GRAPH_INPUTS}'", hint)
        for kind, names in (("inputs", entry.inputs), ("outputs", entry.outputs), ("counts", entry.counts)):
            for tensor in names:
                if tensor.startswith(RESERVED_PREFIX):
                    hint = f"rename it, because names that begin with {RESERVED_PREFIX} are reserved"
                    self.report.add((*path, kind, tensor), f"a tensor cannot be named '{tensor}'", hint)

    def _ordered(self, nodes: Mapping[str, tuple[Node, bool]]) -> list[Node]:
        """Returns the complete nodes whose dependencies are complete too, in topological order; reports cycles."""
        dependencies = {name: node.dependencies() for name, (node, _) in nodes.items()}
        for cycle in cycles(dependencies):
            edges = " -> ".join((*cycle, cycle[0]))
            self.report.add((*TASKS, cycle[0]), f"the tasks form a cycle: {edges}", "remove one of its edges")
        ordered: dict[str, Node] = {}
        for name in topological_order(dependencies):
            node, whole = nodes[name]
            if whole and dependencies[name] <= ordered.keys():
                ordered[name] = node
        return list(ordered.values())

    def _samples(self, spec: GraphSpec, files: Files) -> dict[str, FilePath]:
        samples = {}
        for name, text in spec.sample.items():
            path: Path = ("spec", "sample", name)
            if name not in spec.inputs and (*INPUTS, name) not in self.loaded.source:
                hint = nearest(name, spec.inputs, "inputs of the graph")
                self.report.add(path, f"the graph has no input '{name}', but sample has a file for it", hint)
            if not text.endswith(".npy"):
                self.report.add(path, f"{shown(text)} is not a .npy file", "save the tensor with numpy.save")
            samples[name] = files.path(text, path)
        return samples

    def _check_use(
        self, spec: GraphSpec, nodes: Mapping[str, Node], outputs: Mapping[str, TensorRef], unresolved: Collection[str]
    ) -> None:
        """Reports unused inputs and tasks, except those that an unresolved reference may have been meant to use."""
        refs = {*outputs.values()}
        for node in nodes.values():
            refs |= {*node.inputs.values()}
            if isinstance(node, Task):
                refs |= {node.for_each} if node.for_each is not None else set()
                refs |= {node.when.tensor} if node.when is not None else set()
        if not {"", GRAPH_INPUTS} & set(unresolved):
            for name in spec.inputs:
                if TensorRef(GRAPH_INPUTS, name) not in refs:
                    hint = f"remove it, or use {GRAPH_INPUTS}.{name} as an input of a task"
                    self.report.add((*INPUTS, name), f"no task uses the input '{name}' of the graph", hint)
        if not unresolved:
            used: set[str] = set()
            rest = [ref.task for ref in outputs.values() if not ref.is_graph_input]
            while rest:
                name = rest.pop()
                if name not in used and name != GRAPH_INPUTS:
                    used.add(name)
                    rest.extend(nodes[name].dependencies())
            for name in nodes:
                if name not in used and name != GRAPH_INPUTS:
                    hint = "add one of its outputs to spec.outputs, or remove the task"
                    self.report.add((*TASKS, name), f"no output of the graph depends on task '{name}'", hint)
