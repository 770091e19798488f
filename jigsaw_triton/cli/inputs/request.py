"""What a deployment is asked for, as it goes from the command line to the controller."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jigsaw_triton.cli.inputs.machine import Driver
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.gpus.cluster import gateway_mistakes
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.graph.model import Target
from jigsaw_triton.planner.domain.problem import LatencyModel

_FLAGS: Mapping[tuple[str, ...], str] = {(): "--http, --grpc, --metrics", ("address",): "--address"}


@dataclass(frozen=True, slots=True)
class Request:
    """Files and flags.

    Attributes:
        graphs: Absolute paths.
        gpus: Of --gpus.
        cluster: Absolute path.
        driver: Of --driver.
        demand: Of --demand.
        target: In place of what the graphs say; None leaves it.
        http: Port in place of the cluster's; likewise the next three.
        grpc: See http.
        metrics: See http.
        address: See http.
        share: Whether models may share slices.
        change_price: Of --change-price.
        latency_model: Of --latency-model.
    """

    graphs: tuple[str, ...]
    gpus: str | None = None
    cluster: str | None = None
    driver: Driver | None = None
    demand: tuple[str, ...] = ()
    target: Target | None = None
    http: int | None = None
    grpc: int | None = None
    metrics: int | None = None
    address: str | None = None
    share: bool = False
    change_price: float = 0.0
    latency_model: LatencyModel = "queue"

    def to_json(self) -> dict[str, Any]:
        """For `of_json`."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> "Request":
        """What `to_json` made.

        Raises:
            ValueError: It is not of this release.
        """
        try:
            return cls(**{**data, "graphs": tuple(data["graphs"]), "demand": tuple(data["demand"])})
        except (TypeError, KeyError) as error:
            raise ValueError("the controller and this command are of different releases") from error

    def read(self, out: Output, reader: Callable[..., Wanted], *, default_rps: float = 1.0) -> Wanted:
        """Reads the files.

        Args:
            out: Where the reader tells what the user should know.
            reader: `inputs.read_wanted`.
            default_rps: Of graphs without a demand.

        Raises:
            SpecError: Anything is wrong with them.
        """
        wanted = reader(
            out,
            list(self.graphs),
            gpus=self.gpus,
            cluster=self.cluster,
            driver=self.driver,
            demand=list(self.demand),
            default_rps=default_rps,
        )
        if self.target is not None:
            graphs = {name: replace(graph, target=self.target) for name, graph in wanted.graphs.items()}
            wanted = replace(wanted, graphs=graphs)
        cluster = replace(wanted.cluster, gateway=self._ports(wanted.cluster.gateway))
        return replace(
            wanted,
            cluster=cluster,
            share=self.share,
            change_price=self.change_price,
            latency_model=self.latency_model,
        )

    def _ports(self, given: GatewayPorts) -> GatewayPorts:
        ports = GatewayPorts(
            http=self.http or given.http,
            grpc=self.grpc or given.grpc,
            metrics=self.metrics or given.metrics,
            address=self.address or given.address,
        )
        mistakes = [Diagnostic(_FLAGS[m.field], 0, m.message, m.hint) for m in gateway_mistakes(ports)]
        if mistakes:
            raise SpecError(mistakes)
        return ports
