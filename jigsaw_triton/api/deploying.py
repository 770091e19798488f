"""`deploy`: starts a deployment, or updates the running one."""

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import PathLike
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import Demand, Graphs, Profiles, as_mapping
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.api.request import Request
from jigsaw_triton.api.sources import absolute_path, request_graphs
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, WINDOW_S
from jigsaw_triton.controller.core.settings import CANARY_S, PERIOD_S
from jigsaw_triton.graph.model import Target
from jigsaw_triton.logs import LogFormat
from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, StandbyMode


def deploy(
    graphs: Graphs,
    *,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    target: Target | None = None,
    http: int | None = None,
    grpc: int | None = None,
    metrics: int | None = None,
    address: str | None = None,
    otlp: str | None = None,
    otlp_sample: float | None = None,
    share: bool = False,
    change_price: float = 0.0,
    latency_model: LatencyModel = "queue",
    features: str = "AST",
    formulation: Formulation = "exact",
    objective: Objective = "slices",
    deterministic: bool = False,
    canary: float | None = None,
    canary_s: float = CANARY_S,
    standby: StandbyMode = "auto",
    period_s: float = PERIOD_S,
    forecast: str = DEFAULT_FORECAST,
    window_s: float = WINDOW_S,
    log_format: LogFormat | None = None,
    controller_metrics: str | int | None = None,
    state: PathLike | None = None,
    wait: bool = True,
    reporter: Reporter = LOG,
) -> Deployment:
    """Deploys graphs, or updates the running deployment, and returns once it serves.

    It plans for the demand, creates MIG instances, starts a tritonserver in each and the gateway in front. A controller
    in a process of its own then follows the load; it outlives this process. Use the result as a context manager to take
    the deployment down at the end of a block.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        demand: Requests a second to provide for; 1 for each graph by default, or what the running deployment has.
        gpus: GPUs of this machine, such as `4xA100-80GB`, or `2xcpu`. Either `gpus` or `cluster` is required.
        cluster: Path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        target: Target to compile to, instead of the graphs' own.
        http: HTTP port of the gateway; 8000 by default.
        grpc: gRPC port of the gateway; 8001 by default.
        metrics: Metrics port of the gateway; 8002 by default.
        address: IPv4 address that the gateway listens on; 127.0.0.1 by default.
        otlp: Address of a receiver of OTLP, `http://localhost:4318` or `grpc://localhost:4317`, to which traces are
            exported; `none` to end that.
        otlp_sample: Share of the requests whose traces are exported; 0.01 by default. A client that sends `traceparent`
            decides for its request.
        share: True if rarely called models may share a slice.
        change_price: Compute slices that a plan must save for each running MIG instance that it changes.
        latency_model: Latency model of the planner: `queue` or `2p95`.
        features: Features of the planner: A accuracy scaling, M MIG slices, P several instances in a slice, T
            task-graph-informed budgeting. S is short for M and P. Fewer are a baseline.
        formulation: Formulation of the planner: `exact`, or `paper` as a baseline.
        objective: Objective of the planner: `slices` for the fewest, or `accuracy` for the highest that the GPUs carry
            at the measured load. A change must then gain 0.1% of accuracy for each slice and each instance.
        deterministic: True if emulated variants take the profiled median and yield even numbers of rows, instead of
            drawing both.
        canary: See `Deployment.update`; only for the update of a running deployment.
        canary_s: See `Deployment.update`.
        standby: `auto` to load lighter variants in the same slices for bursts, where they fit; `off` not to.
        period_s: Seconds between two reviews of the plan, which save slices once the load has fallen.
        forecast: Forecast of the load: `highest`, `last`, `holt`, `kalman` or `seasonal`.
        window_s: Seconds of load whose peaks the forecast sees, 20 or more.
        log_format: Form of the controller's log: `text`, the default, or `json`.
        controller_metrics: Port for the controller's metrics, or address and port such as `0.0.0.0:8004`; none by
            default. Like `log_format`, it holds as long as the controller runs.
        state: Folder of the deployment; by default `jigsaw-triton` in `$XDG_STATE_HOME` or `~/.local/state`.
        wait: True to return once the deployment serves; False to return at once.
        reporter: Recipient of notes, events and warnings; by default the logger `jigsaw_triton`.

    Raises:
        InfeasibleError: No plan meets the requirements.
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        StateError: Another change is in progress.
        MissingDependencyError: This machine lacks something; the hint says how to get it.
        JigsawError: The deployment failed. A first deployment is taken down; after a failed update, the previous state
            continues to serve.
    """
    deployment = Deployment(state, log_format=log_format, controller_metrics=controller_metrics)
    request = Request(
        graphs=request_graphs(graphs, profiles),
        gpus=gpus,
        cluster=absolute_path(cluster) if cluster is not None else None,
        driver=driver,
        demand=as_mapping(demand),
        target=target,
        http=http,
        grpc=grpc,
        metrics=metrics,
        address=address,
        otlp=otlp,
        otlp_sample=otlp_sample,
        share=share,
        change_price=change_price,
        latency_model=latency_model,
        features=features,
        formulation=formulation,
        objective=objective,
        deterministic=deterministic,
        canary=canary,
        canary_s=canary_s,
        standby=standby,
        period_s=period_s,
        forecast=forecast,
        window_s=window_s,
    )
    deployment.adopt(reporter=reporter)
    rollout = deployment.prepare(request, reporter=reporter)
    deployment.ensure_programs(rollout, reporter.note, reporter)
    deployment.roll_out(rollout, wait=wait, reporter=reporter)
    return deployment
