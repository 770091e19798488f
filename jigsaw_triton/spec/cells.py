"""Models of front.yaml and cell.yaml, the files of a cluster that is divided into cells.

The docstring of a field is its description in the JSON Schema that editors read.
"""

from typing import Annotated, Literal

from pydantic import Field

from jigsaw_triton.spec.cluster_schema import LIMIT_NODES, EdgeTlsEntry, LimitsEntry
from jigsaw_triton.spec.entries import ADDRESS_PATTERN, API_VERSION, LIMIT_WEIGHT, Entry, Name

Address = Annotated[str, Field(pattern=ADDRESS_PATTERN)]


class ListenEntry(Entry):
    """Address and ports that clients connect to."""

    address: str = Field(default="127.0.0.1", examples=["0.0.0.0"])
    """IPv4 address to listen on."""
    http: int = Field(default=8000, ge=1, le=65535)
    """Port for HTTP. The ports must differ."""
    grpc: int = Field(default=8001, ge=1, le=65535)
    """Port for gRPC."""
    metrics: int = Field(default=8002, ge=1, le=65535)
    """Port of HAProxy's own metrics, for Prometheus."""


class GatewayAddressEntry(Entry):
    """Addresses of a gateway."""

    http: Address = Field(examples=["10.0.0.1:8000"])
    """Host and port of the gateway for HTTP. Names of hosts are looked up every five seconds, and a changed address is
    followed. A gateway whose name is unknown is out of service."""
    grpc: Address = Field(examples=["10.0.0.1:8001"])
    """Host and port of the gateway for gRPC."""
    metrics: Address | None = Field(default=None, examples=["10.0.0.1:8002"])
    """Host and port of the gateway's metrics. Without it, the weights of the cell are always those of this file."""


class FrontCellEntry(GatewayAddressEntry):
    """A cell: the addresses of its gateway, and its share of each graph."""

    name: Name = Field(examples=["cell1"])
    """Name of the cell, unique in the file."""
    weights: dict[Name, Annotated[float, Field(ge=0, le=LIMIT_WEIGHT)]] = Field(
        min_length=1, examples=[{"traffic": 0.5}]
    )
    """Graph -> weight of the cell. Only the proportions of the weights of a graph count. A cell that does not name a
    graph, or has the weight 0, gets no requests to it."""
    standby: GatewayAddressEntry | None = Field(
        default=None, examples=[{"http": "10.0.0.2:8000", "grpc": "10.0.0.2:8001"}]
    )
    """Addresses of the cell's standby gateway, which gets the cell's requests while its gateway cannot be reached."""


class GatewayTlsEntry(Entry):
    """TLS between the front and the gateways, whose edges have `tls`."""

    ca: str = Field(min_length=1, examples=["gateways/ca.pem"])
    """PEM file with the authorities of the gateways. HTTP, gRPC and health checks then reach the gateways over TLS, and
    their certificates are verified."""
    server_name: str | None = Field(
        default=None, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", examples=["gateway.example"]
    )
    """DNS name in the certificates of all gateways; by default the host of each gateway. Required if a gateway is named
    by an IP address."""
    cert: str | None = Field(default=None, min_length=1, examples=["front/cert.pem"])
    """PEM file with a certificate of the front, for gateways with `client_ca`."""
    key: str | None = Field(default=None, min_length=1, examples=["front/key.pem"])
    """PEM file with the private key of the front's certificate, which only its owner may read."""


class FrontSpec(Entry):
    """Specification of the front."""

    listen: ListenEntry = Field(default=ListenEntry(), examples=[{"address": "0.0.0.0", "http": 8000, "grpc": 8001}])
    """Address and ports that clients connect to."""
    cells: list[FrontCellEntry] = Field(
        min_length=1,
        max_length=LIMIT_NODES,
        examples=[
            [{"name": "cell1", "http": "10.0.0.1:8000", "grpc": "10.0.0.1:8001", "weights": {"traffic": 0.5}}],
        ],
    )
    """Cells to balance requests over."""
    tls: EdgeTlsEntry | None = Field(default=None, examples=[{"cert": "front.pem", "key": "front.key"}])
    """TLS for both protocols; without it, they are not encrypted."""
    gateway_tls: GatewayTlsEntry | None = Field(
        default=None, examples=[{"ca": "gateways/ca.pem", "server_name": "gateway.example"}]
    )
    """TLS to gateways whose edges have `tls`. Needs the extra `agents`, which checks the files. The gateways' metrics
    have no TLS."""
    api_keys: str | None = Field(default=None, min_length=1, examples=["keys.txt"])
    """File with one `NAME KEY` on each line, as for the edge of cluster.yaml."""
    limits: LimitsEntry = Field(default=LimitsEntry(), examples=[{"body_mib": 64}])
    """Limits and timeouts."""
    access_log: Literal["all", "problems", "none"] = "problems"
    """Requests in `front.log` in the state folder of the front, with their ids. `problems`: those that failed, were
    repeated or got a status of 500 or above."""


class FrontDocument(Entry):
    """front.yaml: the cells that a front balances requests over."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["Front"] = Field(examples=["Front"])
    """Kind of the document."""
    spec: FrontSpec
    """Specification of the front."""


class CellSpec(Entry):
    """Specification of a cell."""

    graphs: dict[Name, str] = Field(min_length=1, examples=[{"traffic": "/srv/traffic"}])
    """Graph -> its folder or graph.yaml. A relative path starts at the folder of cell.yaml."""
    demand: dict[Name, Annotated[float, Field(gt=0)]] = Field(min_length=1, examples=[{"traffic": 120}])
    """Graph -> requests per second to provide for."""


class CellDocument(Entry):
    """cell.yaml: the graphs of a cell, and its share of their demand. Its nodes are in cluster.yaml beside it."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["Cell"] = Field(examples=["Cell"])
    """Kind of the document."""
    spec: CellSpec
    """Specification of the cell."""
