"""Settings of a front."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigsaw_triton.gpus.gateway import Edge, GatewayPorts


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Addresses of a gateway, each as `HOST:PORT`.

    Attributes:
        http: Address for HTTP.
        grpc: Address for gRPC.
        metrics: Address of its metrics; None if the front does not read them.
    """

    http: str
    grpc: str
    metrics: str | None = None

    def of(self, protocol: str) -> str:
        """Returns the address for a protocol."""
        return self.http if protocol == "http" else self.grpc


@dataclass(frozen=True, slots=True)
class FrontCell:
    """A cell that a front sends requests to.

    Attributes:
        name: Name of the cell.
        gateway: Addresses of its gateway.
        shares: Graph -> planned share of the graph's requests, above 0. Other graphs are absent.
        standby: Addresses of its standby gateway; None if it has none.
    """

    name: str
    gateway: GatewayAddress
    shares: Mapping[str, float] = field(hash=False)
    standby: GatewayAddress | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """A front.

    Attributes:
        cells: Cells, whose shares of each graph add up to 1.
        ports: Address and ports that clients connect to; `metrics` is the port of HAProxy's own metrics.
        edge: Settings towards clients: certificates, API keys and limits.
    """

    cells: tuple[FrontCell, ...]
    ports: GatewayPorts
    edge: Edge

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of all graphs, sorted."""
        return tuple(sorted({graph for cell in self.cells for graph in cell.shares}))

    def cells_of(self, graph: str) -> tuple[FrontCell, ...]:
        """Returns the cells that serve a graph."""
        return tuple(cell for cell in self.cells if graph in cell.shares)

    @property
    def complete_cells(self) -> tuple[FrontCell, ...]:
        """Cells that serve all graphs; all cells if there are none."""
        return tuple(cell for cell in self.cells if len(cell.shares) == len(self.graphs)) or self.cells
