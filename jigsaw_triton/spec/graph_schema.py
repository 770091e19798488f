"""Models of graph.yaml: its structure, and the type and range of each value.

The docstring of a field is its description in the JSON Schema that editors read.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jigsaw_triton.spec.entries import API_VERSION, LIMIT_WEIGHT, Entry, Name, long_form

LIMIT_TASKS = 64
LIMIT_VARIANTS = 64
LIMIT_TENSORS = 64
LIMIT_COMBINATIONS = 4096
LIMIT_PRIORITY = 1000
SCALAR_SHAPE = (1,)
"""Shape in which a model's tensor without dimensions is served, because Triton has no other."""

DType = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]

Reference = Annotated[str, Field(examples=["detect.CROPS"])]


def _dimension(value: Any) -> Any:
    if value == 0 and isinstance(value, int):
        raise PydanticCustomError("dimension", "a dimension must be at least 1, or -1 if it varies")
    return value


def _text(value: Any) -> Any:
    """Formats a scalar as the text that the variant's runner receives."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return value


Dimension = Annotated[
    int,
    Field(ge=-1, le=2**31 - 1, json_schema_extra={"not": {"const": 0}}),
    BeforeValidator(_dimension),
]
Shape = Annotated[list[Dimension], Field(min_length=1, max_length=16, examples=[[-1, 3, 64, 64]])]
ModelShape = Annotated[list[Dimension], Field(max_length=16, examples=[[-1, 3, 64, 64]])]
Scalar = Annotated[
    str,
    BeforeValidator(_text),
    WithJsonSchema({"type": ["string", "number", "boolean"], "examples": [0.5]}),
]


class Metadata(Entry):
    """Metadata of the graph."""

    name: Name = Field(examples=["traffic"])
    """Name of the graph, which clients use as the name of the model."""


class SloEntry(Entry):
    """Service level objective of the graph."""

    latency_ms: float = Field(gt=0, examples=[250])
    """Latency in milliseconds, end to end at the gateway, that `percentile` of the requests keep."""
    percentile: float = Field(default=99.0, gt=0, lt=100, examples=[99])
    """Share of the requests that keep the latency, in percent."""
    accuracy: float = Field(default=1.0, gt=0, le=1, examples=[0.9])
    """Least accuracy: that of each task's variant divided by that of the task's best variant, multiplied along every
    path."""
    accuracy_mode: Literal["floor", "mean"] = "floor"
    """Requests that keep the accuracy. `floor`: each request. `mean`: the requests on average, so that less accurate
    variants may take a part of the calls (the `share`s of the plan)."""


class InputEntry(Entry):
    """Type of an input of the graph for one request, without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: Shape
    """Dimensions, without a batch dimension. -1 is a dimension that varies."""
    rows: float | None = Field(default=None, gt=0, examples=[5])
    """Number of rows to expect when planning, if a task iterates over the input; 1 by default."""


class OutputEntry(Entry):
    """Type of an output of a task for one call, without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: ModelShape
    """Dimensions of one call, without a batch dimension. -1 is a dimension that varies. `[]` is for a model whose
    output has the batch dimension alone: clients and other tasks see the shape `[1]`."""

    @property
    def served_shape(self) -> tuple[int, ...]:
        """Shape that clients and other tasks see."""
        return tuple(self.shape) or SCALAR_SHAPE


class TaskInputEntry(Entry):
    """Source of a task's input and, optionally, the type that the task expects."""

    source: Reference = Field(alias="from")
    """Tensor that the input receives: `task.OUTPUT`, or `inputs.NAME` for an input of the graph."""
    dtype: DType | None = Field(default=None, examples=["FP32"])
    """Data type that the model expects, compared with what arrives."""
    shape: ModelShape | None = None
    """Shape that the model expects in one call, compared with what arrives. -1 matches any size. `[]` is for a model
    whose input has the batch dimension alone: the tensor that arrives has the shape `[1]`."""


class WhenEntry(Entry):
    """Condition under which a task runs; if it does not hold, the task's outputs have no rows."""

    tensor: Reference
    """Numeric tensor with one element for each request, and without rows."""
    above: float | None = Field(default=None, examples=[0.5])
    """Lower bound: the task runs if the element is greater. Give either `above` or `below`."""
    below: float | None = Field(default=None, examples=[0.5])
    """Upper bound: the task runs if the element is less."""
    probability: float = Field(default=1.0, gt=0, le=1, examples=[0.7])
    """Share of the requests for which to expect the task to run when planning."""


class MeasuredEntry(Entry):
    """Measurement that an accuracy comes from, as `profile --accuracy` writes it."""

    metric: Name = Field(examples=["exact"])
    """Metric: `exact`, `top1`, `f1`, `edit`, or a function of the file of labels."""
    data: str = Field(min_length=1, examples=["labels.npz"])
    """File of the labelled set, relative to the folder of graph.yaml."""
    n: int = Field(ge=1, examples=[719])
    """Number of labelled requests."""
    low: float = Field(ge=0, examples=[0.93])
    """Lower end of the 95% confidence interval of the accuracy."""
    high: float = Field(ge=0, examples=[0.96])
    """Upper end of the 95% confidence interval of the accuracy."""


class VariantEntry(Entry):
    """A model that can perform the task."""

    name: Name = Field(examples=["small"])
    """Name of the variant, unique in the task."""
    accuracy: float = Field(gt=0, examples=[37.4])
    """Accuracy, in a unit that all variants of the task share; higher is better."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from, as `profile --accuracy` writes it; absent if somebody else measured
    it."""
    template: Name = Field(examples=["onnxruntime"])
    """Template, which says how the model is served: the name of a folder of model_repository_templates."""
    artifacts: dict[str, str] = Field(default={}, examples=[{"model.onnx": "models/small.onnx"}])
    """Files of the model: name in the model's version folder -> path, relative to the folder of graph.yaml."""
    parameters: dict[str, Scalar] = Field(default={}, examples=[{"threshold": 0.5}])
    """Values for the code that runs the variant. They are passed as text: `0.5` as `"0.5"`, `true` as `"true"`."""
    yields: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"CROPS": 2.6}])
    """Output with rows -> number of rows to expect from a call. Required if a task iterates over the output."""


class TaskEntry(Entry):
    """A node of the graph: a task that models perform or, with `python`, a step that runs the user's own code."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["variants"]}, {"required": ["python"]}]})

    inputs: dict[
        Name,
        Annotated[
            TaskInputEntry,
            BeforeValidator(long_form("from"), json_schema_input_type=TaskInputEntry | str),
        ],
    ] = Field(min_length=1, max_length=LIMIT_TENSORS, examples=[{"IMAGE": "inputs.FRAME"}])
    """Inputs of the model: each is a reference, or a mapping with the type that the model expects. The names of the
    inputs of a Python step are the parameters of its function."""
    outputs: dict[Name, OutputEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": {"dtype": "FP32", "shape": [-1, 4]}}]
    )
    """Outputs of the model, with their types."""
    counts: dict[Name, Name] = Field(default={}, max_length=LIMIT_TENSORS, examples=[{"BOX_COUNT": "BOXES"}])
    """Further outputs, made at the gateway: each names an output of the model, and holds the number of rows that each
    call made of it."""
    variants: list[VariantEntry] = Field(
        default=[],
        min_length=1,
        max_length=LIMIT_VARIANTS,
        examples=[[{"name": "small", "accuracy": 37.4, "template": "onnxruntime"}]],
    )
    """Models that can do the task; required without `python`."""
    for_each: Reference | None = None
    """Tensor whose rows the task is called for, one call for each row."""
    when: WhenEntry | None = Field(default=None, examples=[{"tensor": "detect.SCORE", "above": 0.5}])
    """Condition under which the task runs."""
    retry: Literal["once", "never"] = "once"
    """Policy for a failed call that its worker may have executed. `once`: the call is sent once more, to another worker
    if there is one. `never`: it is not sent again, and its requests fail; use this for models and code that must not
    run twice. With `never`, a batch that a model refuses fails all its requests; with `once`, the batch is tried again
    request by request. Calls that no worker has begun are always sent again."""
    python: str | None = Field(default=None, examples=["steps/crop.py"])
    """File with the code of a Python step, relative to the folder of graph.yaml, in place of `variants`, `for_each` and
    `when`. It defines a function `step`, which a steps worker runs."""
    latency_ms: float | None = Field(default=None, gt=0, examples=[2])
    """Milliseconds of the SLO that are reserved for a Python step; 1 by default. The metrics show how long it really
    takes. The step gets as many processes as keep each half busy at the planned demand, at most 8."""
    yields: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"CROPS": 2.6}])
    """Output with rows of a Python step -> number of rows to expect. Required if a task iterates over the output."""


class MetricEntry(Entry):
    """Comparison of answers with labels."""

    metric: Name = Field(examples=["exact"])
    """Metric: `exact`, `top1`, `f1`, `edit`, or the name of a function in the file of labels, a Python file."""
    output: Name | None = Field(default=None, examples=["LABEL"])
    """Output that the metric compares with its labels. A function gets all tensors and has no `output`."""


class LabelsEntry(Entry):
    """Labelled set of the application, and the metrics by which accuracies are measured on it."""

    data: str = Field(examples=["labels.npz"])
    """File of the labelled set, in the folder of graph.yaml: `.npz`, or a Python file (`.py`). It need not exist,
    except to measure."""
    tasks: dict[Name, MetricEntry] = Field(
        default={}, max_length=LIMIT_TASKS, examples=[{"classify": {"metric": "exact", "output": "LABEL"}}]
    )
    """Task -> metric of the accuracy of its variants."""
    graph: MetricEntry | None = None
    """Metric of the accuracy end to end, whose `output` is one of the graph."""


class CombinationEntry(Entry):
    """Accuracy of a combination of variants end to end, as `profile --accuracy --pairs` writes it."""

    variants: dict[Name, Name] = Field(max_length=LIMIT_TASKS, examples=[{"detect": "small", "classify": "large"}])
    """Task -> its variant, for two or more tasks. The other tasks had their best variants."""
    accuracy: float = Field(gt=0, examples=[0.71])
    """Accuracy end to end, in a unit that all combinations share; higher is better. It need not be the unit of any
    task."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from."""


class GraphSpec(Entry):
    """Specification of the graph."""

    slo: SloEntry = Field(examples=[{"latency_ms": 250}])
    """Service level objective."""
    inputs: dict[Name, InputEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"FRAME": {"dtype": "UINT8", "shape": [-1, -1, 3]}}]
    )
    """Tensors that clients send. Each must be used."""
    outputs: dict[Name, Reference] = Field(min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": "detect.BOXES"}])
    """Tensors that clients get: each is a reference, `task.OUTPUT`, or `inputs.NAME` for an input of the graph."""
    tasks: dict[Name, TaskEntry] = Field(
        min_length=1,
        max_length=LIMIT_TASKS,
        examples=[
            {
                "detect": {
                    "inputs": {"IMAGE": "inputs.FRAME"},
                    "outputs": {"BOXES": {"dtype": "FP32", "shape": [-1, 4]}},
                    "variants": [{"name": "small", "accuracy": 37.4, "template": "onnxruntime"}],
                }
            }
        ],
    )
    """Tasks and Python steps of the graph, in any order."""
    target: Literal["auto", "graph", "ensemble", "bls"] = "auto"
    """Form in which the gateway serves the graph. `graph`: one compiled front; `ensemble`: a native Triton ensemble;
    `bls`: a Python model; `auto`: the same as `graph`."""
    overload: Literal["refuse", "queue"] = "refuse"
    """Policy for requests that can no longer be answered within the SLO: `refuse` them at once, or `queue` them."""
    priority: int = Field(default=0, ge=-LIMIT_PRIORITY, le=LIMIT_PRIORITY, examples=[10])
    """Priority of the graph: if the cluster cannot serve all load, graphs with a larger number are served first."""
    weight: float = Field(default=1.0, gt=0, le=LIMIT_WEIGHT, examples=[2])
    """Weight among graphs of equal priority: with twice the weight, a graph lacks half as large a share of its load."""
    sample: dict[str, str] = Field(default={}, examples=[{"FRAME": "samples/frame.npy"}])
    """Input of the graph -> `.npy` file with the tensor of one real request, which probes and benchmarks send."""
    labels: LabelsEntry | None = Field(default=None, examples=[{"data": "labels.npz"}])
    """Labelled set on which `profile --accuracy` measures the variants."""
    combinations: list[CombinationEntry] = Field(
        default=[],
        max_length=LIMIT_COMBINATIONS,
        examples=[[{"variants": {"detect": "small", "classify": "large"}, "accuracy": 0.71}]],
    )
    """Accuracies of combinations of variants, measured end to end."""


class GraphDocument(Entry):
    """graph.yaml: a task graph and its service level objective."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["TaskGraph"] = Field(examples=["TaskGraph"])
    """Kind of the document."""
    metadata: Metadata = Field(examples=[{"name": "traffic"}])
    """Metadata of the graph."""
    spec: GraphSpec
    """Specification of the graph."""
