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
    """Name of the graph, which is the model name that clients use."""


class SloEntry(Entry):
    """Service level objective of the graph."""

    latency_ms: float = Field(gt=0, examples=[250])
    """Largest end-to-end latency at the gateway, in milliseconds, at `percentile`."""
    percentile: float = Field(default=99.0, gt=0, lt=100, examples=[99])
    """Percentage of the requests whose latency must be within latency_ms."""
    accuracy: float = Field(default=1.0, gt=0, le=1, examples=[0.9])
    """Smallest accuracy, relative to the best variant of each task and multiplied along every path."""
    accuracy_mode: Literal["floor", "mean"] = "floor"
    """Scope of accuracy. floor: it holds for each request; mean: it holds on average over requests."""


class InputEntry(Entry):
    """Type of an input of the graph for one request, without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: Shape
    """Dimensions; -1 for one that varies."""
    rows: float | None = Field(default=None, gt=0, examples=[5])
    """Expected leading dimension, if a task iterates over this input; 1 by default."""


class OutputEntry(Entry):
    """Type of an output of a task for one call, without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: ModelShape
    """Dimensions; -1 for one that varies. [] is for a model whose output has the batch dimension alone: it is served as
    [1]."""

    @property
    def served_shape(self) -> tuple[int, ...]:
        """Shape that clients and other tasks see."""
        return tuple(self.shape) or SCALAR_SHAPE


class TaskInputEntry(Entry):
    """Source of a task's input and, optionally, the type that the task expects."""

    source: Reference = Field(alias="from")
    """Tensor that the input receives: task.OUTPUT, or inputs.NAME for an input of the graph."""
    dtype: DType | None = Field(default=None, examples=["FP32"])
    """Expected data type, checked against that of the source."""
    shape: ModelShape | None = None
    """Expected shape of one call, checked against that of the source; -1 matches any size. [] is for a model whose
    input has the batch dimension alone: the source is [1]."""


class WhenEntry(Entry):
    """Condition under which a task runs; if it does not hold, the task's outputs have no rows."""

    tensor: Reference
    """Numeric tensor with one element per request."""
    above: float | None = Field(default=None, examples=[0.5])
    """Lower bound: the task runs if the element is greater."""
    below: float | None = Field(default=None, examples=[0.5])
    """Upper bound: the task runs if the element is less."""
    probability: float = Field(default=1.0, gt=0, le=1, examples=[0.7])
    """Expected share of requests for which the task runs."""


class MeasuredEntry(Entry):
    """Measurement that an accuracy comes from, as `profile --accuracy` writes it."""

    metric: Name = Field(examples=["exact"])
    """Metric: exact, top1, f1, edit, or a function of the file of labels."""
    data: str = Field(min_length=1, examples=["labels.npz"])
    """File of the labelled set, relative to graph.yaml's folder."""
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
    """Accuracy in any unit that the task's variants share; higher is better."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from; absent if somebody else measured it."""
    template: Name = Field(examples=["onnxruntime"])
    """Model template: the name of a folder of model_repository_templates."""
    artifacts: dict[str, str] = Field(default={}, examples=[{"model.onnx": "models/small.onnx"}])
    """File name in the model's version folder: path of the source file, relative to graph.yaml's folder."""
    parameters: dict[str, Scalar] = Field(default={}, examples=[{"threshold": 0.5}])
    """Parameters that the variant's runner receives as text."""
    yields: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"CROPS": 2.6}])
    """Output with rows: expected number of rows per call."""


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
    """Input of the model: task.OUTPUT, inputs.NAME, or {from, dtype, shape}."""
    outputs: dict[Name, OutputEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": {"dtype": "FP32", "shape": [-1, 4]}}]
    )
    """Output of the model: its type for one call."""
    counts: dict[Name, Name] = Field(default={}, max_length=LIMIT_TENSORS, examples=[{"BOX_COUNT": "BOXES"}])
    """Additional output, computed at the gateway: the output of the model whose rows it counts for each call."""
    variants: list[VariantEntry] = Field(
        default=[],
        min_length=1,
        max_length=LIMIT_VARIANTS,
        examples=[[{"name": "small", "accuracy": 37.4, "template": "onnxruntime"}]],
    )
    """Models that can perform the task."""
    for_each: Reference | None = None
    """Tensor over whose rows the task iterates, with one call per row."""
    when: WhenEntry | None = Field(default=None, examples=[{"tensor": "detect.SCORE", "above": 0.5}])
    """Condition under which the task runs."""
    retry: Literal["once", "never"] = "once"
    """Number of retries of a failed call that its worker may have executed: once, on another worker, or never."""
    python: str | None = Field(default=None, examples=["steps/crop.py"])
    """File that defines a function `step`, relative to graph.yaml's folder, in place of variants. A steps worker runs
    it."""
    latency_ms: float | None = Field(default=None, gt=0, examples=[2])
    """Milliseconds of the SLO that are reserved for the python step; 1 by default. Only with python."""
    yields: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"CROPS": 2.6}])
    """Output with rows: expected number of rows per call. Only with python."""


class MetricEntry(Entry):
    """Comparison of answers with labels."""

    metric: Name = Field(examples=["exact"])
    """Metric: exact, top1, f1, edit, or the name of a function in the file of labels, a Python file."""
    output: Name | None = Field(default=None, examples=["LABEL"])
    """Output that the metric compares with its labels; a function gets all of them and needs none."""


class LabelsEntry(Entry):
    """Labelled set of the application, and the metrics by which accuracies are measured on it."""

    data: str = Field(examples=["labels.npz"])
    """File of the labelled set, .npz or .py, relative to graph.yaml's folder."""
    tasks: dict[Name, MetricEntry] = Field(
        default={}, max_length=LIMIT_TASKS, examples=[{"classify": {"metric": "exact", "output": "LABEL"}}]
    )
    """Task: metric of its variants' accuracy."""
    graph: MetricEntry | None = None
    """Metric of the accuracy end to end. Its output is one of the graph."""


class CombinationEntry(Entry):
    """Accuracy of a combination of variants end to end, as `profile --accuracy --pairs` writes it."""

    variants: dict[Name, Name] = Field(max_length=LIMIT_TASKS, examples=[{"detect": "small", "classify": "large"}])
    """Task: its variant. Tasks that are left out use their most accurate variant."""
    accuracy: float = Field(gt=0, examples=[0.71])
    """Accuracy end to end, in a unit that all combinations share; higher is better."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from."""


class GraphSpec(Entry):
    """Specification of the graph."""

    slo: SloEntry = Field(examples=[{"latency_ms": 250}])
    """Service level objective."""
    inputs: dict[Name, InputEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"FRAME": {"dtype": "UINT8", "shape": [-1, -1, 3]}}]
    )
    """Tensors that clients send."""
    outputs: dict[Name, Reference] = Field(min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": "detect.BOXES"}])
    """Tensors that clients receive: task.OUTPUT."""
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
    """Tasks and python steps of the graph."""
    target: Literal["auto", "graph", "ensemble", "bls"] = "auto"
    """Form in which the graph is served. graph: one compiled front; ensemble: a native Triton ensemble; bls: a Python
    model; auto: the same as graph."""
    overload: Literal["refuse", "queue"] = "refuse"
    """Policy for requests that can no longer meet the SLO: refuse them at once, or queue them."""
    priority: int = Field(default=0, ge=-LIMIT_PRIORITY, le=LIMIT_PRIORITY, examples=[10])
    """Priority of the graph: if the cluster cannot serve all load, graphs with a larger number are served first."""
    weight: float = Field(default=1.0, gt=0, le=LIMIT_WEIGHT, examples=[2])
    """Weight among graphs of equal priority: with twice the weight, a graph sheds half as large a share of its load."""
    sample: dict[str, str] = Field(default={}, examples=[{"FRAME": "samples/frame.npy"}])
    """Input of the graph: a .npy file with the tensor of one real request, for probes and benchmarks."""
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
