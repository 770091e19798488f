"""The task graph and its parts: immutable values that `graph.build` has already checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jigsaw_triton.graph.measured import Combination, Labels, Measured
from jigsaw_triton.graph.tensors import COUNT, TensorRef, TensorType

Target = Literal["auto", "graph", "ensemble", "bls"]


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objective of a graph.

    Attributes:
        latency_ms: Largest end-to-end latency at the gateway, in milliseconds, at `percentile`.
        percentile: Percentile of the latency, in (0, 100).
        accuracy: Smallest accuracy, in (0, 1]: the product, along every path, of the accuracy of each task's variant
            relative to the task's best variant.
        accuracy_mode: Scope of `accuracy`: `floor` for each request, `mean` for the average over requests.
    """

    latency_ms: float
    percentile: float = 99.0
    accuracy: float = 1.0
    accuracy_mode: Literal["floor", "mean"] = "floor"


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that can perform a task.

    Attributes:
        name: Name of the variant, unique in its task.
        accuracy: Accuracy, greater than 0, in any unit that the task's variants share.
        template: Name of a folder in model_repository_templates.
        artifacts: File name in the model's version folder -> absolute path of the source file. In a deployment, it is
            the name of a copy (`controller/persistence/model_files.py`).
        parameters: Parameters that the variant's runner receives as strings.
        yields: Output with rows -> expected number of rows per call.
        config: Text of its own config.pbtxt, an artifact; empty if it has none.
        measured: Measurement that the accuracy comes from; None if somebody else measured it.
    """

    name: str
    accuracy: float
    template: str
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    yields: Mapping[str, float] = field(default_factory=dict)
    config: str = field(default="", repr=False)
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class When:
    """Condition of a task: it runs only if the single element of `tensor` is above `above` or below `below`.

    Attributes:
        tensor: Numeric tensor with one element per request and without rows.
        above: Lower bound, exclusive. Exactly one of the two bounds is set.
        below: Upper bound, exclusive.
        probability: Planning estimate, in (0, 1], of the share of requests for which the task runs.
    """

    tensor: TensorRef
    above: float | None
    below: float | None
    probability: float


@dataclass(frozen=True, slots=True)
class Task:
    """A node of the graph that models perform.

    Attributes:
        name: Name of the task, unique in its graph.
        inputs: Model input -> tensor that it receives.
        outputs: Model output -> its type for one call.
        variants: Variants of the task, at least one, in the order of graph.yaml.
        for_each: Tensor over whose rows the task iterates, with one call per row; None if it does not iterate.
        when: Condition under which the task runs; None if it always runs.
        counts: Additional output, computed at the gateway -> model output whose rows it counts for each call.
        retry: True if a failed call may be retried on another worker although the first may have executed it.
        scalar_inputs: Inputs of shape [1] that the models take without any dimension but the batch.
        scalar_outputs: Outputs of shape [1] that the models return without any dimension but the batch.
    """

    name: str
    inputs: Mapping[str, TensorRef]
    outputs: Mapping[str, TensorType]
    variants: tuple[Variant, ...]
    for_each: TensorRef | None = None
    when: When | None = None
    counts: Mapping[str, str] = field(default_factory=dict)
    retry: bool = True
    scalar_inputs: frozenset[str] = frozenset()
    scalar_outputs: frozenset[str] = frozenset()

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return (*self.outputs, *self.counts)

    def variant(self, name: str) -> Variant:
        """Returns the variant of this name.

        Raises:
            KeyError: The task has no such variant.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    @property
    def best_accuracy(self) -> float:
        """Accuracy of the most accurate variant."""
        return max(v.accuracy for v in self.variants)

    def dependencies(self) -> frozenset[str]:
        """Returns the names of the tasks and Python steps whose outputs this one uses, also in for_each and when."""
        refs = [*self.inputs.values()]
        if self.for_each is not None:
            refs.append(self.for_each)
        if self.when is not None:
            refs.append(self.when.tensor)
        return frozenset(r.task for r in refs if not r.is_graph_input)


@dataclass(frozen=True, slots=True)
class PythonStep:
    """A node of the graph that runs the user's own code on the host's CPUs, once per request.

    Attributes:
        name: Name of the step, unique among the tasks and steps of its graph.
        inputs: Parameter of the step's function -> tensor that it receives.
        outputs: Output -> its type for one request.
        file: Path of the code as written in graph.yaml, for messages.
        source: Text of the code.
        latency_ms: Milliseconds of the SLO that are reserved for the step.
        yields: Output with rows -> expected number of rows per call.
        retry: True if a failed call may be retried although the first attempt may have executed it.
    """

    name: str
    inputs: Mapping[str, TensorRef]
    outputs: Mapping[str, TensorType]
    file: str
    source: str = field(repr=False)
    latency_ms: float
    yields: Mapping[str, float] = field(default_factory=dict)
    retry: bool = True

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return tuple(self.outputs)

    def dependencies(self) -> frozenset[str]:
        """Returns the names of the tasks and Python steps whose outputs this step uses."""
        return frozenset(r.task for r in self.inputs.values() if not r.is_graph_input)


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of the graph.

    Attributes:
        type: Type of the tensor of one request.
        rows: Planning estimate of the leading dimension, used if a task iterates over the input.
    """

    type: TensorType
    rows: float = 1.0


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """A DAG of tasks and Python steps, which clients call as one model.

    Attributes:
        name: Name of the graph, which is its model name at the gateway.
        slo: End-to-end service level objective.
        inputs: Inputs of one request, without a batch dimension.
        outputs: Output for clients -> tensor that it receives.
        tasks: Tasks, at least one, in a topological order that depends on the graph alone.
        target: Form in which the graph is served.
        folder: Absolute path of graph.yaml's folder.
        samples: Graph input -> absolute path of a .npy file with the tensor of one real request, without a batch
            dimension. In a deployment, it is the name of a copy, too.
        priority: Priority of the graph: if not all demand can be served, graphs with a larger number are served first.
        weight: Weight, greater than 0, among graphs of equal priority: the share of its demand that a graph sheds is
            inversely proportional to it.
        steps: Python steps, in topological order.
        overload: Policy for requests that can no longer meet the SLO: `refuse` them at once, or `queue` them.
        labels: Labelled set of the application; None if there is none.
        combinations: Accuracies of combinations of variants, measured end to end.
    """

    name: str
    slo: Slo
    inputs: Mapping[str, GraphInput]
    outputs: Mapping[str, TensorRef]
    tasks: Mapping[str, Task]
    target: Target = "auto"
    folder: Path = Path()
    samples: Mapping[str, Path] = field(default_factory=dict)
    priority: int = 0
    weight: float = 1.0
    steps: Mapping[str, PythonStep] = field(default_factory=dict)
    overload: Literal["refuse", "queue"] = "refuse"
    labels: Labels | None = None
    combinations: tuple[Combination, ...] = ()

    def to_yaml(self) -> str:
        """Returns a graph.yaml that loads to an equal graph if it is saved in `folder`.

        Raises:
            InputError: An artifact or a sample is outside `folder`.
        """
        from jigsaw_triton.graph.document import to_yaml

        return to_yaml(self)

    def to_svg(self) -> str:
        """Returns a drawing of the graph as an SVG document."""
        from jigsaw_triton.graph.picture import svg

        return svg(self)

    def _repr_html_(self) -> str:
        """Drawing that notebooks show."""
        return self.to_svg()

    def in_order(self) -> Iterator[Task | PythonStep]:
        """Yields tasks and Python steps in topological order."""
        done: set[str] = set()

        def ready() -> Iterator[PythonStep]:
            for step in self.steps.values():
                if step.name not in done and step.dependencies() <= done:
                    done.add(step.name)
                    yield step

        for task in self.tasks.values():
            yield from ready()
            done.add(task.name)
            yield task
        yield from ready()

    def before(self, node: Task | PythonStep) -> frozenset[str]:
        """Returns the names of the tasks whose outputs a node uses, directly or through Python steps."""
        needed = node.dependencies()
        if self.steps.keys().isdisjoint(needed):
            return needed
        return frozenset[str]().union(
            *(self.before(self.steps[name]) if name in self.steps else {name} for name in needed)
        )

    @property
    def steps_ms(self) -> float:
        """Milliseconds of the SLO that are reserved for Python steps: the largest sum along any path."""
        until: dict[str, float] = {}
        for node in self.in_order():
            own = node.latency_ms if isinstance(node, PythonStep) else 0.0
            until[node.name] = own + max((until[name] for name in node.dependencies()), default=0.0)
        return max(until.values())

    @property
    def tasks_ms(self) -> float:
        """Milliseconds of the SLO that are left for tasks."""
        return self.slo.latency_ms - self.steps_ms if self.steps else self.slo.latency_ms

    def makes_rows(self, ref: TensorRef) -> bool:
        """Returns True if a task iterates over the tensor and each call that produces it makes any number of rows.

        If its producer is itself called for each row, these are rows of rows: the tensor is the concatenation of the
        rows of all calls.
        """
        if not any(t.for_each == ref for t in self.tasks.values()):
            return False
        if ref.is_graph_input or ref.task in self.steps:
            return True
        task = self.tasks[ref.task]
        return ref.name not in task.counts and task.outputs[ref.name].shape[0] == -1

    def row_axis(self, ref: TensorRef) -> TensorRef | None:
        """Returns the tensor that defines the rows of this one, as its consumers see them.

        A task with `for_each` outputs one row for each row that it iterates over, so tensors of several tasks can share
        an axis. An output with any number of rows per call has an axis of its own. The outputs of a conditional task
        without `for_each` have 0 or 1 rows; they share an axis, which the first of them defines.

        Returns:
            The tensor that defines the axis; None if this tensor has no added row dimension and no task iterates over
            rows that it declares.
        """
        if self.makes_rows(ref):
            return ref
        if ref.is_graph_input or ref.task in self.steps:
            return None
        task = self.tasks[ref.task]
        if task.for_each is not None:
            return self.row_axis(task.for_each) or task.for_each
        if task.when is not None:
            refs = (TensorRef(task.name, name) for name in task.makes)
            return next(ref for ref in refs if not self.makes_rows(ref))
        return None

    def type_of(self, ref: TensorRef) -> TensorType:
        """Returns the tensor's type for one request as consumers and clients see it, including the row dimension."""
        if ref.is_graph_input:
            return self.inputs[ref.name].type
        if ref.task in self.steps:
            return self.steps[ref.task].outputs[ref.name]
        task = self.tasks[ref.task]
        declared = COUNT if ref.name in task.counts else task.outputs[ref.name]
        a_row_a_call = (task.for_each is not None or task.when is not None) and not self.makes_rows(ref)
        return declared.rows() if a_row_a_call else declared

    def iterated(self, task: Task | PythonStep, ref: TensorRef) -> bool:
        """Returns True if each call of `task` receives one row of `ref` instead of the whole tensor."""
        if isinstance(task, PythonStep) or task.for_each is None:
            return False
        axis = self.row_axis(task.for_each) or task.for_each
        return ref == task.for_each or self.row_axis(ref) == axis

    def input_type(self, task: Task | PythonStep, name: str) -> TensorType:
        """Returns the type of an input as the model or the step's code sees it in one call, without batch dimension."""
        ref = task.inputs[name]
        declared = self.type_of(ref)
        return declared.row() if self.iterated(task, ref) else declared

    @property
    def fans_out(self) -> bool:
        """True if any tensor has a number of rows that differs between requests."""
        return any(t.for_each is not None or t.when is not None for t in self.tasks.values())

    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Returns all paths from tasks without dependencies to tasks without dependents, sorted."""
        successors: dict[str, list[str]] = {name: [] for name in self.tasks}
        for task in self.tasks.values():
            for dependency in self.before(task):
                successors[dependency].append(task.name)

        def extend(path: tuple[str, ...]) -> list[tuple[str, ...]]:
            following = successors[path[-1]]
            return [path] if not following else [p for n in following for p in extend((*path, n))]

        roots = [t.name for t in self.tasks.values() if not self.before(t)]
        return tuple(sorted(p for root in roots for p in extend((root,))))


@dataclass(frozen=True, slots=True)
class Workload:
    """A graph and its demand.

    Attributes:
        graph: Graph to plan for.
        demand_rps: Demand in requests per second at the gateway.
    """

    graph: TaskGraph
    demand_rps: float
