"""TLS between a front and gateways whose edges require certificates, with real HAProxies."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.gpus.gateway import EdgeTls
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import Credentials, credentials_in, identity
from tests.e2e.system import free_ports
from tests.front.edged import EdgedGateway
from tests.front.envoy.process import EnvoyProcess
from tests.front.grpc_gateway import ask_grpc
from tests.front.world import FrontProcess

pytestmark = pytest.mark.slow


def issued(folder: Path, node: str) -> Credentials:
    if not folder.exists():
        create_authority(folder, folder.name)
    return credentials_in(issue(folder, node).path.parent)


class World:
    """Two cells, whose gateways accept the same clients, and of which the second has a certificate of a stranger.

    Args:
        folder: Folder of everything.
    """

    def __init__(self, folder: Path) -> None:
        ports = free_ports(9)
        own, self.front_own = issued(folder / "ca", "gateway"), issued(folder / "ca", "front")
        stranger = issued(folder / "other", "gateway")
        self.gateways = []
        for number, (name, shown) in enumerate({"cell1": own, "cell2": stranger}.items()):
            (folder / name).mkdir()
            tls = EdgeTls(str(shown.cert), str(shown.key), client_ca=str(own.ca))
            first, second, third = ports[3 * number : 3 * number + 3]
            self.gateways.append(EdgedGateway(name, (first, second, third), folder / name, tls))
        self.front = FrontProcess(folder, ports[6:])
        self.front.write(
            [
                {
                    "name": gateway.name,
                    "http": f"localhost:{gateway.port}",
                    "grpc": f"localhost:{gateway.grpc}",
                    "weights": {"traffic": 1},
                }
                for gateway in self.gateways
            ],
            gateway_tls={
                "ca": str(self.front_own.ca),
                "server_name": identity("gateway"),
                "cert": str(self.front_own.cert),
                "key": str(self.front_own.key),
            },
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("tls"))
    try:
        for gateway in made.gateways:
            gateway.start()
        yield made
    finally:
        for gateway in made.gateways:
            gateway.stop()


def test_a_front_reaches_only_gateways_whose_certificates_it_can_verify(world: World) -> None:
    world.front.start()
    try:
        world.front.wait(lambda: world.front.status()["cell1"]["up"] and not world.front.status()["cell2"]["up"])
        # A first check may have had no time to end.
        world.front.wait(lambda: "SSL" in world.front.status()["cell2"]["reason"])
        assert world.front.undisturbed(lambda: world.front.ask(10)) == Counter(cell1=10)
        assert world.front.undisturbed(lambda: ask_grpc(world.front.grpc, 10)) == Counter(cell1=10)
    finally:
        world.front.end(signal.SIGTERM)


def test_an_envoy_reaches_only_gateways_whose_certificates_it_can_verify(world: World) -> None:
    with EnvoyProcess(world.front) as envoy:
        envoy.wait(lambda: world.front.ask(10) == Counter(cell1=10))
        envoy.wait(lambda: envoy.grpc_answers(10) == Counter(cell1=10))
