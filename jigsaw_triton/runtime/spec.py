"""What the compiler tells the code inside tritonserver: JSON in the model's one config parameter `spec`.

The standard library alone, because every model instance of every server imports it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SPEC_PARAMETER = "spec"
"""Key of the config.pbtxt parameter that holds the JSON."""

RUN_DIR_VARIABLE = "JIGSAW_RUN_DIR"
"""Environment of all servers: the folder with `workers/*.sock`, `routes/*.json`, `slots/`, `counters/`, `traces/`."""

METRICS_VARIABLE = "JIGSAW_METRICS"
"""Environment of the gateway: `host:port` of its own metrics."""

SECRET_HEADER = "x-jigsaw-secret"
"""HTTP header that carries the deployment's secret."""

SECRET_VARIABLE = "JIGSAW_SECRET"
"""Environment of the gateway: the secret, by which workers let shared memory be registered."""

SHM_PREFIX_VARIABLE = "JIGSAW_SHM_PREFIX"
"""Environment of the gateway: how its regions in /dev/shm begin."""

CONDITION_INPUT = "JIGSAW_WHEN"
"""Input of a conditional task's dispatcher that carries the condition's tensor."""

ROUTE_VERSION = 1
"""routes/<dispatcher>.json: {"version", "workers": [entries]}, entries as of `runtime.route.RouteEntry`."""

Mode = Literal["stack", "rows", "items"]
"""How a dispatcher makes batches for workers.

stack: requests have fixed shapes; they are joined along the batch dimension and cut to what a worker takes.
rows:  a `for_each` (or conditional) task; iterated inputs are [1, R, ...], their rows of many requests are joined,
       outputs are [1, R, ...], and those of rows of rows [1, all rows of the R calls, ...]; inputs that are not
       iterated are repeated for each row.
items: shapes vary between requests, in or out; each item is a request of its own to the worker, sent side by side.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of one call (one item), without a batch dimension.

    Attributes:
        name: Model tensor name.
        dtype: Triton data type.
        shape: -1 where it varies.
        iterated: Inputs of a `rows` dispatcher: whether one call gets one row of it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    iterated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """The task runs when the one element of input CONDITION_INPUT is above (below) the bound; one bound is set."""

    above: float | None
    below: float | None


@dataclass(frozen=True, slots=True)
class DispatcherSpec:
    """A dispatcher.

    Attributes:
        graph: For messages and metrics.
        task: Likewise.
        mode: See `Mode`. A conditional task without for_each has mode `rows` with no iterated input: R is 0 or 1.
        inputs: One call's.
        outputs: One call's.
        condition: Of a conditional task.
        call_timeout_ms: A worker that has not answered a batch by then is taken for failed.
        usual_timeout_ms: The same where the model has answered since its worker was started.
        wait_timeout_ms: A batch waits this long for a free worker slot, then its requests fail as UNAVAILABLE.
        slack_ms: A request that waited longer than this cannot be answered in time and is refused, unless it brings a
            timeout of its own.
        slo_ms: A request that this task alone has had for longer is late.
        share_ms: This task's part of `slack_ms`, which its queue is held to while it is overloaded.
        full: Items in a batch as large as the queue makes them.
        variants: Of the task; what is counted is told apart by them.
        yields: Outputs, with rows declared, through which another task goes row by row; the rows are counted.
        counts: Output that the dispatcher makes itself -> output whose rows it counts, item by item.
        blaming: Messages of failures begin with whom they blame: a pipeline calls it, which is not told the code.
    """

    graph: str
    task: str
    mode: Mode
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    condition: Condition | None = None
    call_timeout_ms: int = 30_000
    usual_timeout_ms: int = 30_000
    wait_timeout_ms: int = 30_000
    slack_ms: float = 30_000.0
    slo_ms: float = 30_000.0
    share_ms: float = 30_000.0
    full: int = 1
    variants: tuple[str, ...] = ()
    yields: tuple[str, ...] = ()
    counts: Mapping[str, str] = field(default_factory=dict)
    blaming: bool = False

    @property
    def one_by_one(self) -> bool:
        """Whether each item goes to a worker in a request of its own: answers of different shapes do not stack."""
        return self.mode == "items" or bool(self.yields)


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
    """

    runner: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    stack: bool = True
    threads: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    yields: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Code:
    """The user's own code.

    Attributes:
        file: As the user wrote it, for messages.
        outputs: All that it is to make for one request.
        yields: Those of them through which a task goes row by row; the rows are counted.
    """

    file: str
    outputs: tuple[TensorSpec, ...]
    yields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """What a BLS pipeline calls: a dispatcher, or a python step.

    Attributes:
        model: Name of the dispatcher, or of the python step.
        inputs: Its input name -> tensor of the graph (`inputs.FRAME`, `detect.CROPS`).
        outputs: Its output name -> tensor of the graph.
        code: Of a python step.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A graph as a BLS model.

    Attributes:
        graph: Name.
        inputs: Graph input name -> tensor.
        outputs: Graph output name -> tensor.
        steps: In topological order; a step may start as soon as its inputs are there.
        split: Whether each item of a client's batch goes its own way through the steps (where rows fan out their number
            differs between items, and python steps get one request at a time); else the batch goes through as it is.
        answers: What each output of the graph is for one request, where python steps may end it early.
        slo_ms: Within which a request is to be answered that brings no timeout of its own.
        call_timeout_ms: Code that has not returned by then counts as hanging, and its request fails.
    """

    graph: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    steps: tuple[PipelineStep, ...]
    split: bool = False
    answers: tuple[TensorSpec, ...] = ()
    slo_ms: float = 30_000.0
    call_timeout_ms: int = 30_000


def to_json(spec: DispatcherSpec | RunnerSpec | PipelineSpec) -> str:
    """One line, the same for equal specs."""
    return json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))


def dispatcher_from_json(text: str) -> DispatcherSpec:
    """Reads what `to_json` wrote."""
    data = json.loads(text)
    condition = data.pop("condition")
    return DispatcherSpec(
        inputs=_tensors(data.pop("inputs")),
        outputs=_tensors(data.pop("outputs")),
        condition=Condition(**condition) if condition is not None else None,
        variants=tuple(data.pop("variants")),
        yields=tuple(data.pop("yields")),
        **data,
    )


def runner_from_json(text: str) -> RunnerSpec:
    """Reads what `to_json` wrote."""
    data = json.loads(text)
    return RunnerSpec(inputs=_tensors(data.pop("inputs")), outputs=_tensors(data.pop("outputs")), **data)


def pipeline_from_json(text: str) -> PipelineSpec:
    """Reads what `to_json` wrote."""
    data = json.loads(text)
    steps = tuple(PipelineStep(code=_code(step.pop("code")), **step) for step in data.pop("steps"))
    return PipelineSpec(steps=steps, answers=_tensors(data.pop("answers")), **data)


def _code(data: dict[str, Any] | None) -> Code | None:
    return Code(data["file"], _tensors(data["outputs"]), tuple(data["yields"])) if data is not None else None


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**item, "shape": tuple(item["shape"])}) for item in items)
