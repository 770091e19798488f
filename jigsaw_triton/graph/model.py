"""The task graph and what it is made of: immutable values, already checked by `graph.build`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

GRAPH_INPUTS = "inputs"
"""The name under which references speak of the graph's own inputs: `inputs.FRAME`."""

Target = Literal["auto", "graph", "ensemble", "bls"]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Type of a tensor for one request (or one row), without a batch dimension.

    Attributes:
        dtype: A Triton data type: `UINT8`, `FP32`, `BYTES`, ...
        shape: Dimensions; -1 where it varies.
    """

    dtype: str
    shape: tuple[int, ...]

    def rows(self) -> "TensorType":
        """The type of any number of these as rows of one tensor."""
        return TensorType(self.dtype, (-1, *self.shape))

    def row(self) -> "TensorType":
        """The type of one row of this tensor."""
        return TensorType(self.dtype, self.shape[1:])


COUNT = TensorType("INT64", (1,))
"""Of the rows that one call made."""


@dataclass(frozen=True, slots=True)
class TensorRef:
    """`task.OUTPUT`, or `inputs.NAME` for an input of the graph."""

    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.task}.{self.name}"

    @property
    def is_graph_input(self) -> bool:
        """Whether this names an input of the graph."""
        return self.task == GRAPH_INPUTS


@dataclass(frozen=True, slots=True)
class Slo:
    """What a graph promises.

    Attributes:
        latency_ms: End to end at the gateway, at `percentile`.
        percentile: In (0, 100).
        accuracy: In (0, 1]: product along every path of accuracy over the task's best variant.
        accuracy_mode: `floor` holds for each request, `mean` on average over requests.
    """

    latency_ms: float
    percentile: float = 99.0
    accuracy: float = 1.0
    accuracy_mode: Literal["floor", "mean"] = "floor"


@dataclass(frozen=True, slots=True)
class Variant:
    """One model that can do a task.

    Attributes:
        name: Unique in its task.
        accuracy: Greater than 0, in whatever unit the task's variants share.
        template: Folder name in model_repository_templates.
        artifacts: File name in the model's version folder -> absolute path of the source file.
        parameters: Passed to the variant's runner as strings.
        yields: Output with rows -> expected rows per call.
    """

    name: str
    accuracy: float
    template: str
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    yields: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class When:
    """A task runs only when the one element of `tensor` is above `above` (or below `below`).

    Attributes:
        tensor: Numeric, one element a request, never one with rows.
        above: The task runs when the element is greater. Exactly one of the two bounds is set.
        below: The task runs when the element is less.
        probability: Planning estimate in (0, 1].
    """

    tensor: TensorRef
    above: float | None
    below: float | None
    probability: float


@dataclass(frozen=True, slots=True)
class Task:
    """A node of the graph.

    Attributes:
        name: Unique in its graph.
        inputs: Model input name -> where it comes from.
        outputs: Model output name -> type of one call's output.
        variants: At least one; ordered as written.
        for_each: The tensor whose rows this task is called for, one call a row.
        when: The condition under which it runs.
        counts: Name of a further output, made at the gateway -> model output whose rows it counts, call by call.
        retry: Whether a call may be repeated on another worker where the first may have executed it.
    """

    name: str
    inputs: Mapping[str, TensorRef]
    outputs: Mapping[str, TensorType]
    variants: tuple[Variant, ...]
    for_each: TensorRef | None = None
    when: When | None = None
    counts: Mapping[str, str] = field(default_factory=dict)
    retry: bool = True

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return (*self.outputs, *self.counts)

    def variant(self, name: str) -> Variant:
        """The variant of this name.

        Raises:
            KeyError: There is none.
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
        """Names of the tasks and python steps whose outputs this one needs (for_each and when included)."""
        refs = [*self.inputs.values()]
        if self.for_each is not None:
            refs.append(self.for_each)
        if self.when is not None:
            refs.append(self.when.tensor)
        return frozenset(r.task for r in refs if not r.is_graph_input)


@dataclass(frozen=True, slots=True)
class PythonStep:
    """A node of the graph that the user's own code does on the host's processors, called once a request.

    Attributes:
        name: Unique among the tasks and steps of its graph.
        inputs: Parameter of the code's function -> where it comes from.
        outputs: Name of an output -> its type for one request.
        file: As written in graph.yaml, for messages.
        source: The code.
        latency_ms: That is kept for it out of the SLO.
        yields: Output with rows -> expected rows.
        retry: Whether a call may be repeated where the first may have executed it.
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
        """Names of the tasks and python steps whose outputs this one needs."""
        return frozenset(r.task for r in self.inputs.values() if not r.is_graph_input)


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of the graph.

    Attributes:
        type: Per request.
        rows: Planning estimate of the leading dimension where a task iterates over it.
    """

    type: TensorType
    rows: float = 1.0


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """A DAG of tasks: one model name for clients.

    Attributes:
        name: The model name at the gateway.
        slo: End to end.
        inputs: Per request, without a batch dimension.
        outputs: Output name for clients -> the tensor it is.
        tasks: In a topological order that depends on the graph alone; at least one.
        target: How the pipeline is to be compiled.
        folder: Absolute folder of graph.yaml.
        samples: Graph input -> absolute path of a .npy file with one real request's tensor (no batch dimension).
        priority: Where not all graphs get what they ask for, the larger first.
        weight: Greater than 0: among graphs of one priority what each goes short of is in inverse proportion to it.
        steps: What the user's own code does, in a topological order.
        overload: `refuse`: requests that cannot be answered within the SLO are refused; `queue`: they wait.
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
        """Tasks and python steps, each after what it needs."""
        done: set[str] = set()

        def able() -> Iterator[PythonStep]:
            for step in self.steps.values():
                if step.name not in done and step.dependencies() <= done:
                    done.add(step.name)
                    yield step

        for task in self.tasks.values():
            yield from able()
            done.add(task.name)
            yield task
        yield from able()

    def before(self, node: Task | PythonStep) -> frozenset[str]:
        """Names of the tasks whose outputs a node needs, by itself or through python steps."""
        needed = node.dependencies()
        if self.steps.keys().isdisjoint(needed):
            return needed
        return frozenset[str]().union(
            *(self.before(self.steps[name]) if name in self.steps else {name} for name in needed)
        )

    @property
    def steps_ms(self) -> float:
        """What of the SLO's latency is kept for python steps: the most along any path."""
        until: dict[str, float] = {}
        for node in self.in_order():
            own = node.latency_ms if isinstance(node, PythonStep) else 0.0
            until[node.name] = own + max((until[name] for name in node.dependencies()), default=0.0)
        return max(until.values())

    @property
    def tasks_ms(self) -> float:
        """What of the SLO's latency is left for tasks."""
        return self.slo.latency_ms - self.steps_ms if self.steps else self.slo.latency_ms

    def makes_rows(self, ref: TensorRef) -> bool:
        """Whether a task iterates over a tensor whose rows are declared: any number for each call of what makes it.

        Where what makes it is itself called for each row, these are rows of rows: those of all its calls follow each
        other in one tensor.
        """
        if not any(t.for_each == ref for t in self.tasks.values()):
            return False
        if ref.is_graph_input or ref.task in self.steps:
            return True
        task = self.tasks[ref.task]
        return ref.name not in task.counts and task.outputs[ref.name].shape[0] == -1

    def row_axis(self, ref: TensorRef) -> TensorRef | None:
        """Which rows the tensor's leading dimension counts, as consumers see it.

        The outputs of a task with `for_each` have one row for each row of what it iterates over, so tensors of several
        tasks can share an axis; unless each call makes rows of its own, which are an axis of their own. The outputs of
        a conditional task without `for_each` have 0 or 1 rows: likewise, named by the first of them.

        Returns:
            The tensor that made the rows, or None where the tensor carries no added row dimension and was not declared
            with a varying leading dimension that a task iterates over.
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
        """The tensor's type per request, as consumers and clients see it (row dimension included)."""
        if ref.is_graph_input:
            return self.inputs[ref.name].type
        if ref.task in self.steps:
            return self.steps[ref.task].outputs[ref.name]
        task = self.tasks[ref.task]
        declared = COUNT if ref.name in task.counts else task.outputs[ref.name]
        a_row_a_call = (task.for_each is not None or task.when is not None) and not self.makes_rows(ref)
        return declared.rows() if a_row_a_call else declared

    def iterated(self, task: Task | PythonStep, ref: TensorRef) -> bool:
        """Whether `task` gets one row of `ref` a call (rather than the whole tensor)."""
        if isinstance(task, PythonStep) or task.for_each is None:
            return False
        axis = self.row_axis(task.for_each) or task.for_each
        return ref == task.for_each or self.row_axis(ref) == axis

    def input_type(self, task: Task | PythonStep, name: str) -> TensorType:
        """Type of one call's input: what the variant's model or the step's code sees, without a batch dimension."""
        ref = task.inputs[name]
        declared = self.type_of(ref)
        return declared.row() if self.iterated(task, ref) else declared

    @property
    def fans_out(self) -> bool:
        """Whether any tensor carries rows that differ in number between requests."""
        return any(t.for_each is not None or t.when is not None for t in self.tasks.values())

    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Every path from a task without dependencies to one that nothing depends on, sorted."""
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
    """A graph and the demand it is planned for, in requests a second at the gateway."""

    graph: TaskGraph
    demand_rps: float
