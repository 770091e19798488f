"""Specifications that the compiler writes into the configurations of models: JSON in the one parameter `spec`.

Runners, python steps and BLS pipelines read theirs here; those of fronts are read by the compiled backend
(`native/core/spec.h`). This module imports the standard library alone, because every model instance of every server
imports it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SPEC_PARAMETER = "spec"
"""Key of the config.pbtxt parameter that holds the JSON."""

RUN_DIR_VARIABLE = "JIGSAW_RUN_DIR"
"""Environment variable of all servers: the folder with `workers/*.sock`, `routes/*.json`, `slots/`, `condemned/` and
`traces/`."""

SECRET_HEADER = "x-jigsaw-secret"
"""HTTP header that carries the deployment's secret."""

SECRET_VARIABLE = "JIGSAW_SECRET"
"""Environment of the gateway: the secret, by which workers let shared memory be registered."""

SHM_PREFIX_VARIABLE = "JIGSAW_SHM_PREFIX"
"""Environment of the gateway: how its regions in /dev/shm begin."""

CLOCK_TENSOR = "JIGSAW_CLOCK"
"""Optional input and output of a one-task front, INT64 [2]: arrival and deadline of the request in nanoseconds of the
monotonic clock, from step to step of an ensemble or a BLS pipeline."""

CONDITION_INPUT = "JIGSAW_WHEN"
"""Input of a conditional task's one-task front that carries the condition's tensor."""

TOKEN_OUTPUT = "JIGSAW_TOKEN"
"""Output of a model that our runners serve, INT64 [1]: the token of the call, by which an answer is known to be its."""

ROWS_PREFIX = "JIGSAW_ROWS."
"""Beginning of the name of the output, INT64 [1], that tells how many rows of another output are an item's own. A
runner fills up the rows of a batch's items to the most that one has, so that they stack."""

ANSWERED_OUTPUT = "JIGSAW_ANSWERED"
"""Output of a python step's model, UINT8 [1]: 1 where the step answers the whole request."""

ANSWER_PREFIX = "JIGSAW_ANSWER."
"""Beginning of the names of the outputs that hold a python step's answer to the whole request."""

SPEC_VERSION = 2
"""Version of a front's specification, as `native/core/spec.h` reads it."""

ROUTE_VERSION = 2
"""Version of `routes/<name>.json`: {"version", "workers": [entries]}, entries as of `compiler.bundle.RouteEntry`."""

Mode = Literal["stack", "rows", "items"]
"""How a front makes calls of workers' models from a task's requests.

stack: Requests have fixed shapes; they are joined along the batch dimension and cut to what a worker takes.
rows:  A `for_each` or conditional task. Iterated inputs are [B, R, ...], their rows of many requests are joined,
       outputs are [B, R, ...], and those of rows of rows [B, all rows of the R calls, ...]; inputs that are not
       iterated are repeated for each row.
items: Shapes vary between requests, in or out; each item is a call of its own, sent side by side.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of one call of a model, without a batch dimension.

    Attributes:
        name: Name of the model's tensor.
        dtype: Triton data type.
        shape: Dimensions; -1 where one varies.
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
        shape: Dimensions of one call's tensor; -1 where one varies.
        tensor: Tensor of the graph that it takes, such as `detect.CROPS` or `inputs.FRAME`.
        iterated: Whether one call gets one row of the tensor.
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
        shape: Dimensions of one call's tensor; -1 where one varies.
        yields: Whether another task goes through its rows, whose number varies from call to call.
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
        shape: Dimensions for one request, without a batch dimension; -1 where one varies.
        tensor: Tensor of the graph that an output is; empty for an input.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """The task runs when the one element of the tensor is above, or below, the bound; one bound is set."""

    tensor: str
    above: float | None
    below: float | None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a front carries it out.

    Attributes:
        name: Name of the task, or of a chain of tasks that its workers do in one call.
        route: Name of its route: the file `routes/<route>.json`.
        mode: How calls are made; see `Mode`.
        inputs: Inputs of one call.
        outputs: Outputs of one call that somebody uses.
        deadline_ms: Deadline of a call where the route states none, and of the first calls of a server's model.
        condition: Condition under which the task runs.
        counts: Output that the front makes itself -> output whose rows it counts, item by item.
        variants: Names of the task's variants, by which metrics are told apart.
        rest_ms: Time of the tasks that follow on the longest path, by the profile; used by a one-task front while their
            fronts are not there.
        followers: Names of the tasks that use an output of this one, in fronts of their own; for a one-task front.
        step: Whether it is a python step.
        retry: Whether a call that may have been executed may be sent once more.
        entry: Whether arrivals at the graph are counted here; of a one-task front of the first task.
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
    """A front: a model of the gateway that has workers do the tasks of a graph, or one of them.

    Attributes:
        graph: Name of the graph.
        slo_ms: Latency within which requests are answered that bring no timeout of their own.
        inputs: Inputs of the front.
        outputs: Outputs of the front.
        tasks: Tasks in topological order.
        overload: `refuse`: a request that cannot be answered in time is refused. `queue`: it waits.
        split: Whether the items of a client's batch go their own ways, where rows fan out or python steps run.
        clock: Whether it is a one-task front that reads and hands on `CLOCK_TENSOR`.
        blaming: Whether messages of failures begin with whose fault they are, for a caller that learns no code.
        capacity_rps: Requests a second that the plan carries, for the metric of that name.
        version: `SPEC_VERSION`.
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
class RunnerSpec:
    """A variant on a worker, run by the python backend.

    Attributes:
        runner: Name of a class in runtime.runners: `onnxruntime`, `torch`, `python`, `emulated`.
        inputs: One item's.
        outputs: One item's.
        stack: Whether items are joined along the batch dimension and run at once; else one at a time.
        threads: For the runner's own thread pools; at least 1.
        parameters: The variant's own.
        latency_ms: `emulated`: batch size -> milliseconds that one execution takes; sizes between are rounded up.
        yields: `emulated`: output with rows -> expected rows a call.
        pads: Outputs whose rows are filled up, so that items stack; see `ROWS_PREFIX`.
    """

    runner: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    stack: bool = True
    threads: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    yields: Mapping[str, float] = field(default_factory=dict)
    pads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A python step, as the model of a steps worker runs it.

    Attributes:
        name: Name of the step.
        file: File of the code as the user wrote it, for messages.
        inputs: Parameters of the code's function.
        outputs: Outputs that the code makes for one request.
        answers: Outputs of the graph, which the code may give in place of its own to end the request.
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
        inputs: Its input name -> tensor of the graph (`inputs.FRAME`, `detect.CROPS`).
        outputs: Its output name -> tensor of the graph.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A graph as a BLS model.

    Attributes:
        graph: Name of the graph.
        inputs: Graph input name -> tensor.
        outputs: Graph output name -> tensor.
        steps: Steps in topological order; a step may start as soon as its inputs are there.
        split: Whether each item of a client's batch goes its own way through the steps, where rows fan out and their
            number differs between items; else the batch goes through as it is.
        slo_ms: Latency within which a request is answered that brings no timeout of its own.
        overload: `refuse`: a request that has waited too long for that is refused. `queue`: it waits.
    """

    graph: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    steps: tuple[PipelineStep, ...]
    split: bool = False
    slo_ms: float = 30_000.0
    overload: Literal["refuse", "queue"] = "refuse"


def to_json(spec: FrontSpec | RunnerSpec | StepSpec | PipelineSpec) -> str:
    """One line of JSON, the same for equal specifications."""
    return json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))


def runner_from_json(text: str) -> RunnerSpec:
    """The specification of a runner that `to_json` wrote."""
    data = json.loads(text)
    inputs, outputs, pads = _tensors(data.pop("inputs")), _tensors(data.pop("outputs")), tuple(data.pop("pads"))
    return RunnerSpec(inputs=inputs, outputs=outputs, pads=pads, **data)


def step_from_json(text: str) -> StepSpec:
    """The specification of a python step that `to_json` wrote."""
    data = json.loads(text)
    inputs, outputs, answers = (_tensors(data.pop(key)) for key in ("inputs", "outputs", "answers"))
    return StepSpec(inputs=inputs, outputs=outputs, answers=answers, **data)


def pipeline_from_json(text: str) -> PipelineSpec:
    """The specification of a pipeline that `to_json` wrote."""
    data = json.loads(text)
    return PipelineSpec(steps=tuple(PipelineStep(**step) for step in data.pop("steps")), **data)


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**item, "shape": tuple(item["shape"])}) for item in items)
