"""Specifications that the compiler writes into model configurations, as JSON in the parameter `spec`.

Runners, Python steps and BLS pipelines read their specifications with this module; the compiled backend reads those of
fronts (`native/core/spec.h`). This module imports only the standard library, because every model instance of every
server imports it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

COMPILED_BACKEND = "jigsaw"
"""Name of the compiled backend in Triton's model configurations."""

SPEC_PARAMETER = "spec"
"""Key of the config.pbtxt parameter that holds the JSON."""

RUN_DIR_VARIABLE = "JIGSAW_RUN_DIR"
"""Environment variable of all servers: path of the run directory, which contains `workers/*.sock`, `routes/*.json`,
`slots/`, `generations/`, `condemned/` and `traces/`."""

PACKAGES_VARIABLE = "JIGSAW_PACKAGES"
"""Environment variable of all servers: folders of the Python packages of the server's interpreter, separated by colons.
The compiled backend finds ONNX Runtime in them."""

SECRET_HEADER = "x-jigsaw-secret"
"""HTTP header that carries the deployment's secret."""

SECRET_VARIABLE = "JIGSAW_SECRET"
"""Environment variable of the gateway and of workers: the secret with which the gateway may register shared memory."""

CALL_SOCKET_VARIABLE = "JIGSAW_CALL_SOCKET"
"""Environment variable of workers: path of the Unix socket at which the listener takes calls."""

LISTENER = "jigsaw_listener"
"""Name of the model that is the listener of a worker."""

SHM_PREFIX_VARIABLE = "JIGSAW_SHM_PREFIX"
"""Environment variable of the gateway: prefix of the names of its regions in /dev/shm."""

CLOCK_TENSOR = "JIGSAW_CLOCK"
"""Optional input and output of a one-task front, INT64 [2]: arrival and deadline of the request in nanoseconds of the
monotonic clock, passed from step to step of an ensemble or a BLS pipeline."""

CONDITION_INPUT = "JIGSAW_WHEN"
"""Input of a conditional task's one-task front that carries the condition's tensor."""

TOKEN_OUTPUT = "JIGSAW_TOKEN"
"""Output of a model that our runners serve, INT64 [1]: token of the call, which shows that an answer belongs to it."""

ROWS_PREFIX = "JIGSAW_ROWS."
"""Prefix of the name of an output, INT64 [1], that holds an item's number of rows in another output. A runner pads the
rows of a batch's items to the largest number, so that they stack."""

ANSWERED_OUTPUT = "JIGSAW_ANSWERED"
"""Output of a Python step's model, UINT8 [1]: 1 if the step answers the whole request."""

ANSWER_PREFIX = "JIGSAW_ANSWER."
"""Prefix of the names of the outputs that hold a Python step's answer to the whole request."""

SPEC_VERSION = 2
"""Version of a front's specification, which `native/core/spec.h` must support."""

ROUTE_VERSION = 3
"""Version of `routes/<name>.json`: {"version", "workers": [entries]}, entries as in `compiler.bundle.RouteEntry`."""

Mode = Literal["stack", "rows", "items"]
"""Way in which a front turns a task's requests into calls of workers' models.

stack: Requests have fixed shapes; they are joined along the batch dimension and cut to the batch size of a worker.
rows:  The task has `for_each` or a condition. Iterated inputs are [B, R, ...], and the rows of many requests are
       joined. Outputs are [B, R, ...], and outputs with rows of rows are [B, all rows of the R calls, ...]. Inputs
       that are not iterated are repeated for each row.
items: Shapes of inputs or outputs vary between requests; each item is a call of its own, and calls are concurrent.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of one call of a model, without a batch dimension.

    Attributes:
        name: Name of the model's tensor.
        dtype: Triton data type.
        shape: Dimensions; -1 for one that varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of a task.

    Attributes:
        name: Name of the model's input.
        dtype: Triton data type.
        shape: Dimensions of one call's tensor; -1 for one that varies.
        tensor: Tensor of the graph that it receives, such as `detect.CROPS` or `inputs.FRAME`.
        iterated: True if each call receives one row of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: str
    iterated: bool = False


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """An output of a task.

    Attributes:
        name: Name of the model's output.
        dtype: Triton data type.
        shape: Dimensions of one call's tensor; -1 for one that varies.
        yields: True if another task iterates over its rows, whose number varies from call to call.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    yields: bool = False


@dataclass(frozen=True, slots=True)
class BoundaryTensor:
    """An input or output of a front.

    Attributes:
        name: Name that clients use.
        dtype: Triton data type.
        shape: Dimensions for one request, without a batch dimension; -1 for one that varies.
        tensor: Tensor of the graph that an output returns; empty for an input.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition of a task: it runs if the tensor's single element is above or below a bound; exactly one is set."""

    tensor: str
    above: float | None
    below: float | None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a front executes it.

    Attributes:
        name: Name of the task, or of a chain of tasks that its workers execute in one call.
        route: Name of its route: the file `routes/<route>.json`.
        mode: Way in which calls are made; see `Mode`.
        inputs: Inputs of one call.
        outputs: Outputs of one call that are used.
        deadline_ms: Deadline of a call if the route has none, and of the first calls of a server's model.
        condition: Condition under which the task runs.
        counts: Output that the front computes itself -> output whose rows it counts for each item.
        variants: Names of the task's variants, which label metrics.
        rest_ms: Time of the tasks that follow on the longest path, from the profile. A one-task front uses it as long
            as the fronts of those tasks do not exist.
        followers: Names of the tasks that use an output of this one in fronts of their own; for a one-task front.
        step: True if it is a Python step.
        retry: True if a call that may have been executed may be retried once.
        entry: True if arrivals at the graph are counted here, as in a one-task front of the first task.
    """

    name: str
    route: str
    mode: Mode
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    deadline_ms: float
    condition: Condition | None = None
    counts: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    rest_ms: float = 0.0
    followers: tuple[str, ...] = ()
    step: bool = False
    retry: bool = True
    entry: bool = False


@dataclass(frozen=True, slots=True)
class FrontSpec:
    """A front: a model of the gateway that executes the tasks of a graph, or one of them, on workers.

    Attributes:
        graph: Name of the graph.
        slo_ms: Latency within which requests without a timeout are answered.
        inputs: Inputs of the front.
        outputs: Outputs of the front.
        tasks: Tasks in topological order.
        overload: Policy for requests that cannot be answered in time: `refuse` them at once, or `queue` them.
        split: True if the items of a client's batch are processed separately, because rows fan out or Python steps run.
        clock: True for a one-task front that reads `CLOCK_TENSOR` and passes it on.
        blaming: True if messages of failures begin with their blame, for a caller that receives no error code.
        capacity_rps: Capacity of the plan in requests per second, for the metric of that name.
        version: Version of the specification, `SPEC_VERSION`.
    """

    graph: str
    slo_ms: float
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    tasks: tuple[TaskSpec, ...]
    overload: Literal["refuse", "queue"] = "refuse"
    split: bool = False
    clock: bool = False
    blaming: bool = False
    capacity_rps: float = 0.0
    version: int = SPEC_VERSION


@dataclass(frozen=True, slots=True)
class EmulationSpec:
    """Behaviour of an emulated variant; `runtime.draws` has the distributions.

    Attributes:
        medians_ms: Median milliseconds of a batch of 0, 1, ... items, up to the largest batch.
        p95: 95th percentile of a batch's time, relative to its median.
        p99: 99th percentile of a batch's time, relative to its median.
        rest: Idle time of the instance after each batch, relative to the batch's median.
        yields: Output with rows -> expected number of rows per call.
        deterministic: True if each batch takes its median and the numbers of rows differ by at most one; False if times
            and rows are drawn.
    """

    medians_ms: tuple[float, ...]
    p95: float
    p99: float
    rest: float
    yields: Mapping[str, float] = field(default_factory=dict)
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """A variant that our own code runs on a worker.

    Attributes:
        runner: `onnxruntime`, which the compiled backend runs (`native/onnx`), or the name of a module in
            runtime.runners, which the Python backend runs: `torch`, `transformers`, `python`, `emulated`.
        inputs: Inputs of one item.
        outputs: Outputs of one item.
        stack: True if items are joined along the batch dimension and run together; otherwise they run one at a time.
        threads: Number of threads of one instance in the runner's own thread pools, at least 1.
        parameters: Parameters of the variant.
        pads: Outputs whose rows are padded so that items stack; see `ROWS_PREFIX`.
        emulation: Behaviour of an emulated variant; None for any other.
    """

    runner: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    stack: bool = True
    threads: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    pads: tuple[str, ...] = ()
    emulation: EmulationSpec | None = None


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A Python step that the model of a steps worker runs.

    Attributes:
        name: Name of the step.
        file: Path of the code as written in graph.yaml, for messages.
        inputs: Parameters of the step's function.
        outputs: Outputs of the step for one request.
        answers: Outputs of the graph, which the step may return in place of its own to end the request.
    """

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answers: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """A one-task front that a BLS pipeline calls.

    Attributes:
        model: Name of the front.
        inputs: Input of the front -> tensor of the graph (`inputs.FRAME`, `detect.CROPS`).
        outputs: Output of the front -> tensor of the graph.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """The BLS model of a graph.

    Attributes:
        graph: Name of the graph.
        inputs: Input of the graph -> tensor.
        outputs: Output of the graph -> tensor.
        steps: Steps in topological order; a step may start as soon as its inputs are complete.
        split: True if each item of a client's batch runs through the steps separately, because rows fan out and their
            number differs between items; otherwise the batch is processed as a whole.
        slo_ms: Latency within which requests without a timeout are answered.
        overload: Policy for requests that can no longer be answered in time: `refuse` them, or `queue` them.
    """

    graph: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    steps: tuple[PipelineStep, ...]
    split: bool = False
    slo_ms: float = 30_000.0
    overload: Literal["refuse", "queue"] = "refuse"


def to_json(spec: FrontSpec | RunnerSpec | StepSpec | PipelineSpec) -> str:
    """Formats a specification as one line of JSON; equal specifications give equal text."""
    return json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))


def runner_from_json(text: str) -> RunnerSpec:
    """Reads the specification of a runner that `to_json` wrote."""
    data = json.loads(text)
    inputs, outputs, pads = _tensors(data.pop("inputs")), _tensors(data.pop("outputs")), tuple(data.pop("pads"))
    emulation = data.pop("emulation")
    if emulation is not None:
        emulation = EmulationSpec(medians_ms=tuple(emulation.pop("medians_ms")), **emulation)
    return RunnerSpec(inputs=inputs, outputs=outputs, pads=pads, emulation=emulation, **data)


def step_from_json(text: str) -> StepSpec:
    """Reads the specification of a Python step that `to_json` wrote."""
    data = json.loads(text)
    inputs, outputs, answers = (_tensors(data.pop(key)) for key in ("inputs", "outputs", "answers"))
    return StepSpec(inputs=inputs, outputs=outputs, answers=answers, **data)


def pipeline_from_json(text: str) -> PipelineSpec:
    """Reads the specification of a pipeline that `to_json` wrote."""
    data = json.loads(text)
    return PipelineSpec(steps=tuple(PipelineStep(**step) for step in data.pop("steps")), **data)


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**item, "shape": tuple(item["shape"])}) for item in items)
