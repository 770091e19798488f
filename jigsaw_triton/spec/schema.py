"""What graph.yaml and cluster.yaml may say: structure, types and ranges of values taken one by one.

The text under a field is its description in the JSON Schema that editors read.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jigsaw_triton.spec.words import NAME_PATTERN

API_VERSION = "jigsaw-triton/v1"
IMAGE_PATTERN = r"^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$"
LIMIT_TASKS = 64
LIMIT_VARIANTS = 64
LIMIT_TENSORS = 64
LIMIT_GPUS = 4096
LIMIT_PRIORITY = 1000
LIMIT_WEIGHT = 1000.0

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

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Reference = Annotated[str, Field(examples=["detect.CROPS"])]


def _dimension(value: Any) -> Any:
    if value == 0 and isinstance(value, int):
        raise PydanticCustomError("dimension", "a dimension is at least 1, or -1 where it varies")
    return value


def _text(value: Any) -> Any:
    """A scalar as the text that a variant's runner gets."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return value


def _long_form(value: Any) -> Any:
    """`detect.CROPS` as `{from: detect.CROPS}`."""
    return {"from": value} if isinstance(value, str) else value


def _edge_long_form(value: Any) -> Any:
    """`haproxy` as `{kind: haproxy}`, `none` as null."""
    if value == "none":
        return None
    return {"kind": value} if isinstance(value, str) else value


Dimension = Annotated[
    int,
    Field(ge=-1, le=2**31 - 1, json_schema_extra={"not": {"const": 0}}),
    BeforeValidator(_dimension),
]
Shape = Annotated[list[Dimension], Field(min_length=1, max_length=16, examples=[[-1, 3, 64, 64]])]
Scalar = Annotated[
    str,
    BeforeValidator(_text),
    WithJsonSchema({"type": ["string", "number", "boolean"], "examples": [0.5]}),
]


class _Entry(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Metadata(_Entry):
    """What the graph is called."""

    name: Name = Field(examples=["traffic"])
    """Model name for clients."""


class SloEntry(_Entry):
    """What the graph promises."""

    latency_ms: float = Field(gt=0, examples=[250])
    """End to end at the gateway, in milliseconds, at `percentile`."""
    percentile: float = Field(default=99.0, gt=0, lt=100, examples=[99])
    """Of the requests whose latency is within latency_ms."""
    accuracy: float = Field(default=1.0, gt=0, le=1, examples=[0.9])
    """Relative to the best variant of each task, multiplied along every path."""
    accuracy_mode: Literal["floor", "mean"] = "floor"
    """floor: holds for each request; mean: on average over requests."""


class TensorEntry(_Entry):
    """A tensor of one request (one call), without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: Shape
    """Dimensions; -1 where one varies."""


class InputEntry(TensorEntry):
    """An input of the graph, of one request, without a batch dimension."""

    rows: float | None = Field(default=None, gt=0, examples=[5])
    """Expected leading dimension, where a task iterates over this input; 1 unless told."""


class TaskInputEntry(_Entry):
    """Where a task's input comes from, and optionally what the task expects of it."""

    source: Reference = Field(alias="from")
    """task.OUTPUT, or inputs.NAME for an input of the graph."""
    dtype: DType | None = Field(default=None, examples=["FP32"])
    """Checked against what arrives."""
    shape: Shape | None = None
    """Of one call, checked against what arrives; -1 agrees with anything."""


class WhenEntry(_Entry):
    """The condition under which a task runs; where it does not, its outputs have no rows."""

    tensor: Reference
    """Numeric, one element a request."""
    above: float | None = Field(default=None, examples=[0.5])
    """The task runs when the element is greater."""
    below: float | None = Field(default=None, examples=[0.5])
    """The task runs when the element is less."""
    probability: float = Field(default=1.0, gt=0, le=1, examples=[0.7])
    """Expected share of requests for which the task runs."""


class VariantEntry(_Entry):
    """One model that can do the task."""

    name: Name = Field(examples=["small"])
    """Unique in the task."""
    accuracy: float = Field(gt=0, examples=[37.4])
    """In whatever unit the task's variants share; higher is better."""
    template: Name = Field(examples=["onnxruntime"])
    """A folder of model_repository_templates."""
    artifacts: Annotated[dict[str, str], Field(examples=[{"model.onnx": "models/small.onnx"}])] = {}
    """File name in the model's version folder: path of the file, relative to graph.yaml's folder."""
    parameters: Annotated[dict[str, Scalar], Field(examples=[{"threshold": 0.5}])] = {}
    """Passed to what runs the variant, as text."""
    yields: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(examples=[{"CROPS": 2.6}])] = {}
    """Output with rows: expected rows of one call."""


class TaskEntry(_Entry):
    """A step of the graph: a task that models can do, or, with `python`, the user's own code."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["variants"]}, {"required": ["python"]}]})

    inputs: dict[
        Name,
        Annotated[
            TaskInputEntry,
            BeforeValidator(_long_form, json_schema_input_type=TaskInputEntry | str),
        ],
    ] = Field(min_length=1, max_length=LIMIT_TENSORS, examples=[{"IMAGE": "inputs.FRAME"}])
    """Input of the model: task.OUTPUT or inputs.NAME, or {from, dtype, shape}."""
    outputs: dict[Name, TensorEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": {"dtype": "FP32", "shape": [-1, 4]}}]
    )
    """Output of the model: its type for one call."""
    counts: dict[Name, Name] = Field(default={}, max_length=LIMIT_TENSORS, examples=[{"BOX_COUNT": "BOXES"}])
    """Further output, made at the gateway: an output of the model whose rows it counts, call by call."""
    variants: list[VariantEntry] = Field(
        default=[],
        min_length=1,
        max_length=LIMIT_VARIANTS,
        examples=[[{"name": "small", "accuracy": 37.4, "template": "onnxruntime"}]],
    )
    """The models that can do the task."""
    for_each: Reference | None = None
    """Tensor whose rows the task is called for, one call a row."""
    when: WhenEntry | None = Field(default=None, examples=[{"tensor": "detect.SCORE", "above": 0.5}])
    """The condition under which the task runs."""
    retry: Literal["once", "never"] = "once"
    """Repetition of a call on another worker where the first may have executed it before it failed."""
    python: str | None = Field(default=None, examples=["steps/crop.py"])
    """In place of variants: a file with a function `step`, relative to graph.yaml's folder; a steps worker runs it."""
    latency_ms: float | None = Field(default=None, gt=0, examples=[2])
    """With python: milliseconds of the SLO that are kept for it; 1 unless told."""
    yields: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, examples=[{"CROPS": 2.6}])
    """With python: output with rows: expected rows of one call."""


class GraphSpec(_Entry):
    """The graph."""

    slo: SloEntry = Field(examples=[{"latency_ms": 250}])
    """Service level objective."""
    inputs: dict[Name, InputEntry] = Field(
        min_length=1, max_length=LIMIT_TENSORS, examples=[{"FRAME": {"dtype": "UINT8", "shape": [-1, -1, 3]}}]
    )
    """What clients send."""
    outputs: dict[Name, Reference] = Field(min_length=1, max_length=LIMIT_TENSORS, examples=[{"BOXES": "detect.BOXES"}])
    """What clients get: task.OUTPUT."""
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
    """The steps."""
    target: Literal["auto", "graph", "ensemble", "bls"] = "auto"
    """Form in which the graph is served: graph is one compiled front, ensemble a native Triton ensemble, bls a Python
    model. auto is graph."""
    overload: Literal["refuse", "queue"] = "refuse"
    """Fate of requests that cannot be answered within the SLO any more: they are refused at once, or they wait."""
    priority: int = Field(default=0, ge=-LIMIT_PRIORITY, le=LIMIT_PRIORITY, examples=[10])
    """Where the cluster cannot carry all load, graphs of a larger number get theirs first."""
    weight: float = Field(default=1.0, gt=0, le=LIMIT_WEIGHT, examples=[2])
    """Among graphs of one priority: one of twice the weight goes short of half as great a part of its load."""
    sample: Annotated[dict[str, str], Field(examples=[{"FRAME": "samples/frame.npy"}])] = {}
    """Input of the graph: a .npy file with one real request's tensor, for probes and benchmarks."""


class GraphDocument(_Entry):
    """graph.yaml: a task graph and its service level objective."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["TaskGraph"] = Field(examples=["TaskGraph"])
    """What the file describes."""
    metadata: Metadata = Field(examples=[{"name": "traffic"}])
    """Its name."""
    spec: GraphSpec
    """Its content."""


class ForeignEntry(_Entry):
    """A MIG instance that is somebody else's."""

    slice: str = Field(examples=["2g"])
    """Its kind; with +me where it has the media engines."""
    start: int = Field(examples=[0])
    """Memory slice where it starts."""


class GpusEntry(_Entry):
    """GPUs of one model."""

    model: str = Field(examples=["A100-80GB"])
    """A board of the catalog."""
    count: int = Field(default=1, ge=1, le=LIMIT_GPUS, examples=[4])
    """How many."""
    foreign: list[ForeignEntry] = Field(default=[], max_length=16, examples=[[{"slice": "2g", "start": 0}]])
    """MIG instances that others have on each of them, to be left alone."""


class NodeEntry(_Entry):
    """A machine."""

    name: Name = Field(examples=["a"])
    """Unique in the cluster."""
    gpus: list[GpusEntry] = Field(min_length=1, max_length=64, examples=[[{"model": "A100-80GB", "count": 4}]])
    """Its GPUs, in the order of their indices."""


class GatewayEntry(_Entry):
    """Where clients reach the gateway."""

    http: int = Field(default=8000, ge=1, le=65535)
    """Port of HTTP."""
    grpc: int = Field(default=8001, ge=1, le=65535)
    """Port of gRPC."""
    metrics: int = Field(default=8002, ge=1, le=65535)
    """Port of the metrics."""
    address: str = Field(default="127.0.0.1", examples=["0.0.0.0"])
    """IPv4 address to listen on."""
    image: str | None = Field(default=None, pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:25.08-py3"])
    """Container image that the gateway runs from; the machine's own tritonserver by default."""
    runtime: Literal["docker", "podman"] | None = None
    """Program that runs the image; docker where it is installed, else podman, by default."""
    memory_mib: int = Field(default=4096, ge=512, le=2**20, examples=[4096])
    """Heap that the gateway may allocate, in MiB; a request that needs more ends the gateway, which starts again."""


class EdgeTlsEntry(_Entry):
    """Certificates of the edge."""

    cert: str = Field(min_length=1, examples=["/etc/ssl/edge.pem"])
    """PEM file with the server certificate, followed by intermediate certificates."""
    key: str = Field(min_length=1, examples=["/etc/ssl/edge.key"])
    """PEM file with the private key of the server certificate."""
    client_ca: str | None = Field(default=None, min_length=1, examples=["/etc/ssl/clients.pem"])
    """PEM file with the certificate authorities of clients; clients without a certificate are refused."""


class EdgeLimitsEntry(_Entry):
    """Limits and timeouts that the edge enforces."""

    body_mib: int = Field(default=64, ge=1, le=2047, examples=[64])
    """Largest body of an HTTP request and largest message of a unary gRPC call, in MiB."""
    connections: int = Field(default=4096, ge=1, le=60_000, examples=[4096])
    """Connections that each protocol accepts at a time; further ones wait."""
    client_connections: int | None = Field(default=None, ge=1, examples=[100])
    """Connections that one client address may have at a time, for each protocol; unlimited by default."""
    client_rps: int | None = Field(default=None, ge=1, examples=[500])
    """Requests per second that one client may send, by API key or else by address; unlimited by default."""
    queue_s: int = Field(default=30, ge=0, le=3600, examples=[30])
    """Seconds that a request waits while the gateway restarts, before it is refused."""
    resend_kib: int = Field(default=16, ge=16, le=1024, examples=[64])
    """Largest request that is sent again after the gateway died under it, in KiB; each request costs time for it."""
    header_s: int = Field(default=10, ge=1, le=3600, examples=[10])
    """Seconds that a client may take to send the headers of a request."""
    idle_s: int = Field(default=60, ge=1, le=86_400, examples=[60])
    """Seconds after which a connection without requests is closed, and after which a stalled upload is given up."""
    answer_s: int = Field(default=600, ge=1, le=86_400, examples=[600])
    """Seconds to wait for the answer of the gateway, and longest pause between messages of a gRPC stream."""


class EdgeEntry(_Entry):
    """The proxy in front of the gateway, which then takes the public ports."""

    kind: Literal["haproxy"] = Field(examples=["haproxy"])
    """Program of the edge."""
    tls: EdgeTlsEntry | None = Field(default=None, examples=[{"cert": "edge.pem", "key": "edge.key"}])
    """Certificates; without them both protocols are plain text."""
    api_keys: str | None = Field(default=None, min_length=1, examples=["keys.txt"])
    """File with one `NAME KEY` on each line; requests without a listed key are refused."""
    limits: EdgeLimitsEntry = Field(default=EdgeLimitsEntry(), examples=[{"body_mib": 64}])
    """Limits and timeouts."""
    metrics: int = Field(default=8003, ge=1, le=65535, examples=[8003])
    """Port of the Prometheus exporter of the edge."""
    access_log: Literal["all", "problems", "none"] = "problems"
    """Requests that `edge.log` has, with their ids: all, or those that failed, were repeated or got a status of 500."""


class ServerEntry(_Entry):
    """What workers run from, in place of the machine's own tritonserver."""

    image: str = Field(pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:24.10-py3"])
    """A container image with tritonserver and its python backend."""
    runtime: Literal["docker", "podman"] | None = None
    """What runs it: docker where it is there, else podman, unless told."""


class ClusterSpec(_Entry):
    """The cluster."""

    driver: Literal["nvml", "emulated"] | None = None
    """Of MIG; nvml where a GPU answers, else emulated, unless told."""
    engine: Literal["local", "ray"] = "local"
    """What starts the workers."""
    processes: Literal["streams", "mps"] = "streams"
    """What the instances of a model on a slice are: streams of one server, or a server each under MPS."""
    server: ServerEntry | None = Field(default=None, examples=[{"image": "nvcr.io/nvidia/tritonserver:24.10-py3"}])
    """The image that workers run from; the machine's own tritonserver unless told."""
    nodes: list[NodeEntry] = Field(
        min_length=1, max_length=1024, examples=[[{"name": "a", "gpus": [{"model": "A100-80GB", "count": 4}]}]]
    )
    """The machines."""
    gateway: GatewayEntry = Field(default=GatewayEntry(), examples=[{"http": 8000, "grpc": 8001, "metrics": 8002}])
    """Where clients reach the gateway."""
    edge: Annotated[
        EdgeEntry | None,
        BeforeValidator(_edge_long_form, json_schema_input_type=EdgeEntry | Literal["haproxy", "none"] | None),
    ] = Field(default=None, examples=["haproxy"])
    """Proxy in front of the gateway; `haproxy`, `none`, or a mapping with its settings."""


class ClusterDocument(_Entry):
    """cluster.yaml: the machines to plan for and to run on."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["Cluster"] = Field(examples=["Cluster"])
    """What the file describes."""
    spec: ClusterSpec
    """Its content."""
