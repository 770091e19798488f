"""Warnings of a rollout."""

import pytest

from jigsaw_triton.api.rollout import exposure
from jigsaw_triton.gpus.gateway import Edge, EdgeTls, GatewayPorts
from jigsaw_triton.gpus.model import Cluster


@pytest.mark.parametrize(
    ("edge", "open_to_all", "advised"),
    [
        (None, "inference, the models' metadata and the metrics are open to everyone", True),
        (Edge(tls=EdgeTls("c", "k")), "inference, the models' metadata and the metrics are open to everyone", True),
        (Edge(api_keys="keys"), "but the metrics are open to everyone", False),
        (Edge(tls=EdgeTls("c", "k", "ca")), "but the metrics are open to everyone", False),
    ],
)
def test_an_address_of_all_networks_is_a_warning_that_says_what_protects(
    edge: Edge | None, open_to_all: str, advised: bool
) -> None:
    warning = exposure(Cluster((), gateway=GatewayPorts(address="0.0.0.0"), edge=edge)) or ""
    assert "the gateway listens on 0.0.0.0, so other machines can reach it" in warning
    assert open_to_all in warning
    assert ("API keys" in warning) is advised


def test_an_address_of_this_machine_alone_is_no_warning() -> None:
    assert exposure(Cluster((), gateway=GatewayPorts(address="127.0.0.2"))) is None
