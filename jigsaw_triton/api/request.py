"""Requests to deploy, in a form that the controller's process reads."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jigsaw_triton.api import membership
from jigsaw_triton.api.files import GraphText, Mistakes, read_graphs
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.settings import check_settings
from jigsaw_triton.api.wanted import read_demand, read_wanted
from jigsaw_triton.controller.core.generation import PLANNING, Canary, Wanted
from jigsaw_triton.controller.core.settings import CANARY_S
from jigsaw_triton.errors import Diagnostic, InputError, SpecError
from jigsaw_triton.gpus.cluster import gateway_mistakes, otlp_mistakes
from jigsaw_triton.gpus.gateway import DEFAULT_SAMPLE, GatewayPorts, Otlp
from jigsaw_triton.graph.model import Target
from jigsaw_triton.planner.domain.features import canonical
from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, StandbyMode

DEFAULT_RPS = 1.0
"""Demand of graphs that are deployed without one, in requests a second."""


NO_OTLP = "none"
"""Value of `otlp` that ends the export of traces."""

SETTINGS = (*PLANNING, "deterministic", "period_s", "forecast", "window_s")
"""Settings of a whole deployment, which a request and the deployment's input have under the same names."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request to deploy graphs.

    A setting of the whole deployment (`SETTINGS`) that is None has its default, or, if graphs join or leave, the value
    that it has in the deployment.

    Attributes:
        graphs: Absolute paths of graph.yaml files or their folders, and graphs that were built in Python.
        joins: True if the graphs join those that are deployed, which stay as they were deployed.
        leaving: Names of the deployed graphs that leave; the others stay as they were deployed.
        gpus: GPUs of this machine, such as `4xA100-80GB`; None if `cluster` is given, or to keep those of the
            deployment that the graphs join or leave.
        cluster: Absolute path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        demand: Requests a second by graph; the key `files.ONLY_GRAPH` is the only graph.
        target: Target to compile to, instead of the graphs' own.
        http: HTTP port of the gateway, instead of the cluster's.
        grpc: gRPC port of the gateway, instead of the cluster's.
        metrics: Metrics port of the gateway, instead of the cluster's.
        address: IPv4 address that the gateway listens on, instead of the cluster's.
        otlp: Address of the receiver of traces, instead of the cluster's; `NO_OTLP` for none.
        otlp_sample: Share of the requests whose traces are exported, instead of the cluster's.
        share: True if models may share slices.
        change_price: Compute slices that a plan must save for each running MIG instance that it changes.
        latency_model: Latency model of the planner.
        features: Features of the planner; fewer are a baseline.
        formulation: Formulation of the planner; the paper's is a baseline.
        objective: Objective of the planner: the fewest slices, or the highest accuracy.
        standby: `auto` loads standby variants where they fit, `off` does not.
        deterministic: True if emulated variants do not draw their times and rows.
        canary: Share of the requests that the update answers before it takes over; None for no canary.
        canary_s: Seconds that the canary takes.
        period_s: Seconds between two reviews of a plan whose load has fallen.
        forecast: Name of the forecast of the load.
        window_s: Seconds of load whose peaks the forecast sees.
    """

    graphs: tuple[str | GraphText, ...]
    joins: bool = False
    leaving: tuple[str, ...] = ()
    gpus: str | None = None
    cluster: str | None = None
    driver: Driver | None = None
    demand: Mapping[str, float] = field(default_factory=dict)
    target: Target | None = None
    http: int | None = None
    grpc: int | None = None
    metrics: int | None = None
    address: str | None = None
    otlp: str | None = None
    otlp_sample: float | None = None
    share: bool | None = None
    change_price: float | None = None
    latency_model: LatencyModel | None = None
    features: str | None = None
    formulation: Formulation | None = None
    objective: Objective | None = None
    standby: StandbyMode | None = None
    deterministic: bool | None = None
    canary: float | None = None
    canary_s: float = CANARY_S
    period_s: float | None = None
    forecast: str | None = None
    window_s: float | None = None

    @property
    def changes_membership(self) -> bool:
        """True if graphs join or leave a deployment, whose other graphs and settings stay."""
        return self.joins or bool(self.leaving)

    @property
    def wanted_canary(self) -> Canary | None:
        """Canary of the update; None for none."""
        return Canary(self.canary, self.canary_s) if self.canary is not None else None

    def to_json(self) -> dict[str, Any]:
        """Returns the request as JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Request":
        """Reads what `to_json` returned.

        Raises:
            ValueError: Another release made it.
        """
        try:
            graphs = tuple(graph if isinstance(graph, str) else GraphText(**graph) for graph in data["graphs"])
            return cls(**{**data, "graphs": graphs, "leaving": tuple(data["leaving"]), "demand": {**data["demand"]}})
        except (TypeError, KeyError) as error:
            raise ValueError("the controller and this program are of different releases") from error

    def read(
        self,
        deployed: Wanted | None = None,
        *,
        mistakes: Mistakes | None = None,
        reporter: Reporter = LOG,
        wording: Wording = PYTHON,
    ) -> Wanted:
        """Reads the files that the request names.

        Args:
            deployed: Input of the running deployment, if graphs join or leave it; else None.
            mistakes: Mistakes that were found before.
            reporter: Recipient of notes and warnings.
            wording: Form in which mistakes name an option.

        Raises:
            SpecError: There are mistakes; the error has all of them.
            InputError: A graph that leaves is not deployed, or a letter stands for no feature.
        """
        mistakes = mistakes or Mistakes()
        kept = membership.without(deployed, self.leaving) if deployed is not None else None
        staying = kept.graphs if kept is not None else {}
        given_rps = {name: rps for name, rps in self.demand.items() if name in staying}
        if kept is not None:
            demand_rps = read_demand({**kept.demand_rps, **given_rps}, list(staying), mistakes, wording=wording)
            kept = replace(kept, demand_rps=demand_rps)
        keeps_gpus = self.gpus is None and self.cluster is None
        wanted = read_wanted(
            self.graphs,
            gpus=self.gpus,
            cluster=kept.cluster if kept is not None and keeps_gpus else self.cluster,
            driver=self.driver,
            demand={name: rps for name, rps in self.demand.items() if name not in staying},
            default_rps=DEFAULT_RPS,
            others=staying,
            mistakes=mistakes,
            reporter=reporter,
            wording=wording,
        )
        if self.target is not None:
            graphs = {name: replace(graph, target=self.target) for name, graph in wanted.graphs.items()}
            wanted = replace(wanted, graphs=graphs)
        if kept is not None:
            wanted = membership.joined(kept, wanted)
        cluster = replace(
            wanted.cluster,
            gateway=self._ports(wanted.cluster.gateway, wording),
            otlp=self._otlp(wanted.cluster.otlp, wording),
        )
        given = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        if self.features is not None:
            given["features"] = canonical(self.features)
        check_settings(period_s=self.period_s, forecast=self.forecast, window_s=self.window_s, wording=wording)
        return replace(wanted, cluster=cluster, **given)

    def as_running(self, status: Mapping[str, Any]) -> "Request":
        """Returns the request of an update, which keeps the demand if it names none.

        It keeps the gateway's ports and the export of traces, too, unless a cluster.yaml sets them.

        Args:
            status: Status of the running deployment.
        """
        request = self
        if not self.demand:
            # Mistakes in the graphs are reported where the whole request is read.
            kept = read_graphs(self.graphs, Mistakes()).keys() & status["graphs"].keys()
            demand = {name: status["graphs"][name]["base_rps"] for name in sorted(kept)}
            request = replace(self, demand=demand)
        if self.cluster is None and (ports := status["gateway"].get("ports")) is not None:
            request = replace(
                request,
                http=self.http or ports["http"],
                grpc=self.grpc or ports["grpc"],
                metrics=self.metrics or ports["metrics"],
                address=self.address or ports["address"],
            )
            if (otlp := status.get("otlp")) is not None and self.otlp != NO_OTLP:
                sample = self.otlp_sample if self.otlp_sample is not None else otlp["sample"]
                endpoint = self.otlp if self.otlp is not None else otlp["endpoint"]
                request = replace(request, otlp=endpoint, otlp_sample=sample)
        return request

    def _ports(self, configured: GatewayPorts, wording: Wording) -> GatewayPorts:
        ports = GatewayPorts(
            http=self.http or configured.http,
            grpc=self.grpc or configured.grpc,
            metrics=self.metrics or configured.metrics,
            address=self.address or configured.address,
        )
        mistakes = [
            Diagnostic(", ".join(map(wording.name, m.field or ("http", "grpc", "metrics"))), 0, m.message, m.hint)
            for m in gateway_mistakes(ports)
        ]
        if mistakes:
            raise SpecError(mistakes)
        return ports

    def _otlp(self, configured: Otlp | None, wording: Wording) -> Otlp | None:
        """Returns the export of traces; None for none.

        Raises:
            InputError: The address or the share is not one, or there is a share without an address.
        """
        names = {
            "endpoint": wording.name("otlp"),
            "sample": wording.name("otlp-sample" if wording.flags else "otlp_sample"),
        }
        endpoint = self.otlp
        if endpoint is None:
            endpoint = configured.endpoint if configured is not None else NO_OTLP
        if endpoint == NO_OTLP:
            if self.otlp_sample is not None:
                hint = f"name the receiver with {wording.setting('otlp', 'http://localhost:4318')}"
                raise InputError("there is no receiver of traces", where=names["sample"], hint=hint)
            return None
        usual = configured.sample if configured is not None else DEFAULT_SAMPLE
        otlp = Otlp(endpoint, self.otlp_sample if self.otlp_sample is not None else usual)
        for mistake in otlp_mistakes(otlp):
            raise InputError(mistake.message, where=names[mistake.field[0]], hint=mistake.hint)
        return otlp


def check_canary(request: Request, before: Mapping[str, Any] | None, wording: Wording) -> None:
    """Checks the canary that a request asks for, if any.

    Args:
        request: Request to deploy.
        before: Status of the running deployment; None if nothing is served.
        wording: Form in which mistakes name an option.

    Raises:
        InputError: The canary is not a share or not a duration, or nothing runs with which it could be compared.
    """
    share, where = request.canary, wording.name("canary")
    if share is None:
        return
    if not 0 < share < 1:
        hint = f"choose a share of the requests, such as {wording.setting('canary', '0.05')}"
        raise InputError(f"{share:g} is not a share between 0 and 1", where=where, hint=hint)
    if not (request.canary_s > 0 and math.isfinite(request.canary_s)):
        name = wording.name("canary-for" if wording.flags else "canary_s")
        raise InputError(f"{request.canary_s:g} is not a number of seconds above 0", where=name, hint="choose 300")
    if before is None or before["generation"] == 0:
        hint = "deploy without it; the next update can be a canary"
        raise InputError("nothing is served here yet with which a canary could be compared", where=where, hint=hint)
