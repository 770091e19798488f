"""Models of graph.yaml and cluster.yaml: their structure, and the type and range of each value.

The docstring of a field is its description in the JSON Schema that editors read.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jigsaw_triton.spec.words import NAME_PATTERN

API_VERSION = "jigsaw-triton/v1"
CERTIFICATE_FILES = ("cert.pem", "key.pem", "ca.pem")
"""Files in a folder of certificates: the certificate, its private key, and the authorities to trust."""

ADDRESS_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}$"
"""Host name, IPv4 address or IPv6 address in brackets, and a port."""

IMAGE_PATTERN = r"^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$"
LIMIT_TASKS = 64
LIMIT_VARIANTS = 64
LIMIT_TENSORS = 64
LIMIT_COMBINATIONS = 4096
AGENT_PORT = 7440
"""Port of agents whose address is not given."""

LIMIT_GPUS = 16_384
LIMIT_NODES = 2048
LIMIT_PRIORITY = 1000
LIMIT_COST = 1e6
LIMIT_WEIGHT = 1000.0
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

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
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


def _long_form(value: Any) -> Any:
    """Expands `detect.CROPS` to `{from: detect.CROPS}`."""
    return {"from": value} if isinstance(value, str) else value


def _edge_long_form(value: Any) -> Any:
    """Expands `haproxy` to `{kind: haproxy}`, and turns `none` into null."""
    if value == "none":
        return None
    return {"kind": value} if isinstance(value, str) else value


def _standby_long_form(value: Any) -> Any:
    """Expands `b` to `{node: b}`."""
    return {"node": value} if isinstance(value, str) else value


def _survive_long_form(value: Any) -> Any:
    """Expands `node` to `{loss_of: node}`."""
    return {"loss_of": value} if isinstance(value, str) else value


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


class _Entry(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Metadata(_Entry):
    """Metadata of the graph."""

    name: Name = Field(examples=["traffic"])
    """Name of the graph, which is the model name that clients use."""


class SloEntry(_Entry):
    """Service level objective of the graph."""

    latency_ms: float = Field(gt=0, examples=[250])
    """Largest end-to-end latency at the gateway, in milliseconds, at `percentile`."""
    percentile: float = Field(default=99.0, gt=0, lt=100, examples=[99])
    """Percentage of the requests whose latency must be within latency_ms."""
    accuracy: float = Field(default=1.0, gt=0, le=1, examples=[0.9])
    """Smallest accuracy, relative to the best variant of each task and multiplied along every path."""
    accuracy_mode: Literal["floor", "mean"] = "floor"
    """Scope of accuracy. floor: it holds for each request; mean: it holds on average over requests."""


class InputEntry(_Entry):
    """Type of an input of the graph for one request, without a batch dimension."""

    dtype: DType = Field(examples=["FP32"])
    """Triton data type."""
    shape: Shape
    """Dimensions; -1 for one that varies."""
    rows: float | None = Field(default=None, gt=0, examples=[5])
    """Expected leading dimension, if a task iterates over this input; 1 by default."""


class OutputEntry(_Entry):
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


class TaskInputEntry(_Entry):
    """Source of a task's input and, optionally, the type that the task expects."""

    source: Reference = Field(alias="from")
    """Tensor that the input receives: task.OUTPUT, or inputs.NAME for an input of the graph."""
    dtype: DType | None = Field(default=None, examples=["FP32"])
    """Expected data type, checked against that of the source."""
    shape: ModelShape | None = None
    """Expected shape of one call, checked against that of the source; -1 matches any size. [] is for a model whose
    input has the batch dimension alone: the source is [1]."""


class WhenEntry(_Entry):
    """Condition under which a task runs; if it does not hold, the task's outputs have no rows."""

    tensor: Reference
    """Numeric tensor with one element per request."""
    above: float | None = Field(default=None, examples=[0.5])
    """Lower bound: the task runs if the element is greater."""
    below: float | None = Field(default=None, examples=[0.5])
    """Upper bound: the task runs if the element is less."""
    probability: float = Field(default=1.0, gt=0, le=1, examples=[0.7])
    """Expected share of requests for which the task runs."""


class MeasuredEntry(_Entry):
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


class VariantEntry(_Entry):
    """A model that can perform the task."""

    name: Name = Field(examples=["small"])
    """Name of the variant, unique in the task."""
    accuracy: float = Field(gt=0, examples=[37.4])
    """Accuracy in any unit that the task's variants share; higher is better."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from; absent if somebody else measured it."""
    template: Name = Field(examples=["onnxruntime"])
    """Model template: the name of a folder of model_repository_templates."""
    artifacts: Annotated[dict[str, str], Field(examples=[{"model.onnx": "models/small.onnx"}])] = {}
    """File name in the model's version folder: path of the source file, relative to graph.yaml's folder."""
    parameters: Annotated[dict[str, Scalar], Field(examples=[{"threshold": 0.5}])] = {}
    """Parameters that the variant's runner receives as text."""
    yields: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(examples=[{"CROPS": 2.6}])] = {}
    """Output with rows: expected number of rows per call."""


class TaskEntry(_Entry):
    """A node of the graph: a task that models perform or, with `python`, a step that runs the user's own code."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["variants"]}, {"required": ["python"]}]})

    inputs: dict[
        Name,
        Annotated[
            TaskInputEntry,
            BeforeValidator(_long_form, json_schema_input_type=TaskInputEntry | str),
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


class MetricEntry(_Entry):
    """Comparison of answers with labels."""

    metric: Name = Field(examples=["exact"])
    """Metric: exact, top1, f1, edit, or the name of a function in the file of labels, a Python file."""
    output: Name | None = Field(default=None, examples=["LABEL"])
    """Output that the metric compares with its labels; a function gets all of them and needs none."""


class LabelsEntry(_Entry):
    """Labelled set of the application, and the metrics by which accuracies are measured on it."""

    data: str = Field(examples=["labels.npz"])
    """File of the labelled set, .npz or .py, relative to graph.yaml's folder."""
    tasks: dict[Name, MetricEntry] = Field(
        default={}, max_length=LIMIT_TASKS, examples=[{"classify": {"metric": "exact", "output": "LABEL"}}]
    )
    """Task: metric of its variants' accuracy."""
    graph: MetricEntry | None = None
    """Metric of the accuracy end to end. Its output is one of the graph."""


class CombinationEntry(_Entry):
    """Accuracy of a combination of variants end to end, as `profile --accuracy --pairs` writes it."""

    variants: dict[Name, Name] = Field(max_length=LIMIT_TASKS, examples=[{"detect": "small", "classify": "large"}])
    """Task: its variant. Tasks that are left out use their most accurate variant."""
    accuracy: float = Field(gt=0, examples=[0.71])
    """Accuracy end to end, in a unit that all combinations share; higher is better."""
    measured: MeasuredEntry | None = None
    """Measurement that `accuracy` comes from."""


class GraphSpec(_Entry):
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
    sample: Annotated[dict[str, str], Field(examples=[{"FRAME": "samples/frame.npy"}])] = {}
    """Input of the graph: a .npy file with the tensor of one real request, for probes and benchmarks."""
    labels: LabelsEntry | None = Field(default=None, examples=[{"data": "labels.npz"}])
    """Labelled set on which `profile --accuracy` measures the variants."""
    combinations: list[CombinationEntry] = Field(
        default=[],
        max_length=LIMIT_COMBINATIONS,
        examples=[[{"variants": {"detect": "small", "classify": "large"}, "accuracy": 0.71}]],
    )
    """Accuracies of combinations of variants, measured end to end."""


class GraphDocument(_Entry):
    """graph.yaml: a task graph and its service level objective."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["TaskGraph"] = Field(examples=["TaskGraph"])
    """Kind of the document."""
    metadata: Metadata = Field(examples=[{"name": "traffic"}])
    """Metadata of the graph."""
    spec: GraphSpec
    """Specification of the graph."""


class ForeignEntry(_Entry):
    """A MIG instance that somebody else uses."""

    slice: str = Field(examples=["2g"])
    """Kind of the slice, with the suffix +me if it has the media engines."""
    start: int = Field(examples=[0])
    """Memory slice at which the instance starts."""


class GpusEntry(_Entry):
    """GPUs of one model."""

    model: str = Field(examples=["A100-80GB"])
    """Name of a GPU model of the catalog."""
    count: int = Field(default=1, ge=1, le=LIMIT_GPUS, examples=[4])
    """Number of GPUs."""
    cost: float | None = Field(default=None, gt=0, le=LIMIT_COST, examples=[2.5])
    """Cost of one of these GPUs per hour, in any currency. Give it for all GPUs or for none."""
    foreign: list[ForeignEntry] = Field(default=[], max_length=16, examples=[[{"slice": "2g", "start": 0}]])
    """MIG instances of others on each of these GPUs, which must not be touched."""


class NodeEntry(_Entry):
    """A machine of the cluster."""

    name: Name = Field(examples=["a"])
    """Name of the machine, unique in the cluster."""
    agent: str | None = Field(default=None, pattern=ADDRESS_PATTERN, examples=["10.0.0.1:7440"])
    """Host and port of the machine's agent. With the engine `ray` the default is the address that Ray has, and
    `ray.port`."""
    gpus: list[GpusEntry] = Field(min_length=1, max_length=64, examples=[[{"model": "A100-80GB", "count": 4}]])
    """GPUs of the machine, in the order of their indices."""
    topology: dict[Name, Name] = Field(default={}, max_length=16, examples=[{"rack": "r1"}])
    """Labels of the machine, such as its rack, by which `survive` spreads replicas."""


class OtlpEntry(_Entry):
    """Export of traces by OpenTelemetry's protocol."""

    endpoint: str = Field(min_length=1, max_length=1024, examples=["http://localhost:4318"])
    """Address of a receiver of OTLP, such as an OpenTelemetry Collector: `http://HOST:4318` or `grpc://HOST:4317`."""
    sample: float = Field(default=0.01, ge=0, le=1, examples=[0.01])
    """Share of the requests whose traces are exported. A client that sends `traceparent` decides for its request."""


class StandbyGatewayEntry(_Entry):
    """Warm standby of the gateway, on another machine."""

    node: Name = Field(examples=["b"])
    """Machine whose agent keeps the standby."""
    address: str | None = Field(default=None, examples=["0.0.0.0"])
    """IPv4 address to listen on there; that of the gateway by default. The ports are those of the gateway."""


class GatewayEntry(_Entry):
    """Address, ports and limits of the gateway, to which clients connect."""

    http: int = Field(default=8000, ge=1, le=65535)
    """Port for HTTP."""
    grpc: int = Field(default=8001, ge=1, le=65535)
    """Port for gRPC."""
    metrics: int = Field(default=8002, ge=1, le=65535)
    """Port for metrics."""
    address: str = Field(default="127.0.0.1", examples=["0.0.0.0"])
    """IPv4 address to listen on."""
    image: str | None = Field(default=None, pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:25.08-py3"])
    """Container image that the gateway runs from; the machine's own tritonserver by default."""
    runtime: Literal["docker", "podman"] | None = None
    """Program that runs the image; docker where it is installed, else podman, by default."""
    memory_mib: int = Field(default=4096, ge=512, le=2**20, examples=[4096])
    """Heap that the gateway may allocate, in MiB; a request that needs more crashes the gateway, which restarts."""
    processors: int = Field(default=64, ge=1, le=1024, examples=[64])
    """Processors that the gateway of a cell may keep busy; `plan --cells` makes no larger cells."""
    workers: int = Field(default=128, ge=1, le=2**16, examples=[128])
    """Workers that one task may have in a cell; `plan --cells` makes no larger cells."""
    otlp: OtlpEntry | None = Field(default=None, examples=[{"endpoint": "http://localhost:4318", "sample": 0.01}])
    """Export of traces; none by default."""
    standby: Annotated[
        StandbyGatewayEntry | None,
        BeforeValidator(_standby_long_form, json_schema_input_type=StandbyGatewayEntry | Name | None),
    ] = Field(default=None, examples=["b"])
    """Machine that keeps a second gateway ready, with the engine `agents`: its name, or a mapping with an address."""


class EdgeTlsEntry(_Entry):
    """Certificates of the edge."""

    cert: str = Field(min_length=1, examples=["/etc/ssl/edge.pem"])
    """PEM file with the server certificate, followed by intermediate certificates."""
    key: str = Field(min_length=1, examples=["/etc/ssl/edge.key"])
    """PEM file with the private key of the server certificate."""
    client_ca: str | None = Field(default=None, min_length=1, examples=["/etc/ssl/clients.pem"])
    """PEM file with the certificate authorities of clients; clients without a certificate are refused."""


class LimitsEntry(_Entry):
    """Limits and timeouts that are enforced towards clients."""

    body_mib: int = Field(default=64, ge=1, le=2047, examples=[64])
    """Largest body of an HTTP request and largest message of a unary gRPC call, in MiB."""
    connections: int = Field(default=4096, ge=1, le=60_000, examples=[4096])
    """Connections that each protocol accepts at a time; further ones wait."""
    client_connections: int | None = Field(default=None, ge=1, examples=[100])
    """Connections that one client address may have at a time, for each protocol; unlimited by default."""
    client_rps: int | None = Field(default=None, ge=1, examples=[500])
    """Requests per second that one client may send, by API key or else by address; unlimited by default."""
    header_s: int = Field(default=10, ge=1, le=3600, examples=[10])
    """Seconds that a client may take to send the headers of a request."""
    idle_s: int = Field(default=60, ge=1, le=86_400, examples=[60])
    """Seconds after which an idle connection is closed and a stalled upload is aborted."""
    answer_s: int = Field(default=600, ge=1, le=86_400, examples=[600])
    """Seconds to wait for the gateway's response, and longest pause between messages of a gRPC stream."""


class EdgeLimitsEntry(LimitsEntry):
    """Limits and timeouts that the edge enforces."""

    queue_s: int = Field(default=30, ge=0, le=3600, examples=[30])
    """Seconds that a request waits while the gateway restarts, before it is refused."""
    resend_kib: int = Field(default=16, ge=16, le=1024, examples=[64])
    """Largest request, in KiB, that is resent if the gateway dies while it handles it. A larger value slows every
    request down."""


class EdgeEntry(_Entry):
    """Proxy in front of the gateway, which takes over the public ports."""

    kind: Literal["haproxy"] = Field(examples=["haproxy"])
    """Program of the edge."""
    tls: EdgeTlsEntry | None = Field(default=None, examples=[{"cert": "edge.pem", "key": "edge.key"}])
    """TLS certificates; without them, both protocols are unencrypted."""
    api_keys: str | None = Field(default=None, min_length=1, examples=["keys.txt"])
    """File with one `NAME KEY` pair per line; requests without a listed key are refused."""
    limits: EdgeLimitsEntry = Field(default=EdgeLimitsEntry(), examples=[{"body_mib": 64}])
    """Limits and timeouts."""
    metrics: int = Field(default=8003, ge=1, le=65535, examples=[8003])
    """Port of the edge's Prometheus exporter."""
    access_log: Literal["all", "problems", "none"] = "problems"
    """Requests that `edge.log` lists with their ids. problems: those that failed, were retried or got a status of
    500."""


class ServerEntry(_Entry):
    """Container image for workers, in place of the machine's own tritonserver."""

    image: str = Field(pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:24.10-py3"])
    """Container image with tritonserver and its python backend."""
    runtime: Literal["docker", "podman"] | None = None
    """Program that runs the image; docker where it is installed, else podman, by default."""


class SurviveEntry(_Entry):
    """Loss that a plan must survive."""

    loss_of: Name = Field(examples=["rack"])
    """node, or the label of `topology` whose machines may be lost together."""
    share: float = Field(default=0.5, gt=0, le=1, examples=[0.5])
    """Share of each graph's demand that must still be served within its SLO."""


class RayEntry(_Entry):
    """Ray cluster whose raylets are the machines, with the engine `ray`."""

    address: str = Field(default="auto", min_length=1, max_length=1024, examples=["ray://10.0.0.1:10001"])
    """Address of the Ray cluster, as `ray.init` takes it. auto: the cluster of the controller's machine."""
    port: int = Field(default=AGENT_PORT, ge=1, le=65535, examples=[AGENT_PORT])
    """Port on which the agents listen, unless `agent` of the node has another one."""
    state: str | None = Field(default=None, pattern=r"^/", max_length=1024, examples=["/var/lib/jigsaw-triton"])
    """Folder in which each machine keeps its state; by default in the home folder of the user who runs the raylet."""


class ClusterSpec(_Entry):
    """Specification of the cluster."""

    driver: Literal["nvml", "emulated"] | None = None
    """MIG driver; nvml if a GPU is found, else emulated, by default."""
    engine: Literal["local", "agents", "ray"] = "local"
    """Engine that starts the workers. local: the controller, on its own machine; agents: an agent on each machine; ray:
    the same, where Ray starts the agents."""
    certificates: str | None = Field(default=None, min_length=1, examples=["certificates/controller"])
    """Folder with the controller's `cert.pem`, `key.pem` and `ca.pem`. With the engine `ray`, folders of the nodes lie
    beside it; without it, the controller makes all certificates itself."""
    ray: RayEntry | None = Field(default=None, examples=[{"address": "ray://10.0.0.1:10001"}])
    """Ray cluster, with the engine `ray`."""
    processes: Literal["streams", "mps"] = "streams"
    """Form of a model's instances on a slice. streams: instances of one server; mps: one server each, under MPS."""
    server: ServerEntry | None = Field(default=None, examples=[{"image": "nvcr.io/nvidia/tritonserver:24.10-py3"}])
    """Container image that workers run from; the machine's own tritonserver by default."""
    nodes: list[NodeEntry] = Field(
        min_length=1, max_length=LIMIT_NODES, examples=[[{"name": "a", "gpus": [{"model": "A100-80GB", "count": 4}]}]]
    )
    """Machines of the cluster."""
    survive: Annotated[
        SurviveEntry | None,
        BeforeValidator(_survive_long_form, json_schema_input_type=SurviveEntry | Name | None),
    ] = Field(default=None, examples=["node"])
    """Loss that plans must survive: `node`, a label of the machines' topology, or a mapping with the share that must be
    left."""
    gateway: GatewayEntry = Field(default=GatewayEntry(), examples=[{"http": 8000, "grpc": 8001, "metrics": 8002}])
    """Address, ports and limits of the gateway."""
    edge: Annotated[
        EdgeEntry | None,
        BeforeValidator(_edge_long_form, json_schema_input_type=EdgeEntry | Literal["haproxy", "none"] | None),
    ] = Field(default=None, examples=["haproxy"])
    """Proxy in front of the gateway; `haproxy`, `none`, or a mapping with its settings."""


class ClusterDocument(_Entry):
    """cluster.yaml: the machines to plan for and run on."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["Cluster"] = Field(examples=["Cluster"])
    """Kind of the document."""
    spec: ClusterSpec
    """Specification of the cluster."""
