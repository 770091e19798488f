"""HAProxy as the edge of a deployment: access control, limits, and deaths of the gateway and of the edge."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from jigsaw_triton.servers.installation import Installation
from tests.e2e.app import write_application
from tests.e2e.clients import Crowd, expected
from tests.e2e.system import System, free_ports
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

KEYS = {"alice": "alice-0123456789abcdef", "bob": "bob-0123456789abcdef"}
RPS = 20
CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  nodes: [{{name: local, gpus: [{{model: cpu, count: 2}}]}}]
  edge: {edge}
"""


def served(system: System, folder: Path, edge: Mapping[str, object]) -> System:
    """Deploys the application of `app` behind an edge with these settings."""
    app = write_application(folder / "app")
    (folder / "cluster.yaml").write_text(CLUSTER.format(edge=json.dumps(edge)))
    system.deploy(app, "--cluster", folder / "cluster.yaml", "--demand", 20)
    return system


@pytest.fixture(scope="module")
def exporter() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def plain(shared: System, tmp_path_factory: pytest.TempPathFactory, exporter: int) -> System:
    """A deployment behind an edge without certificates or API keys."""
    edge = {"kind": "haproxy", "metrics": exporter, "access_log": "all", "limits": {"body_mib": 1, "queue_s": 60}}
    return served(shared, tmp_path_factory.mktemp("plain"), edge)


def body(numbers: list[int], shape: list[int] | None = None) -> bytes:
    tensor = {"name": "NUMBERS", "datatype": "INT64", "shape": shape or [1, len(numbers)], "data": numbers}
    return json.dumps({"inputs": [tensor]}).encode()


def post(
    system: System, content: bytes, headers: Mapping[str, str] | None = None, *, context: ssl.SSLContext | None = None
) -> http.client.HTTPResponse:
    """Sends a request on a new connection, over TLS if there is a context."""
    connection = http.client.HTTPConnection("127.0.0.1", system.http, timeout=WAIT_LIMIT_S)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", system.http, timeout=WAIT_LIMIT_S, context=context)
    with closing(connection):
        connection.request("POST", "/v2/models/words/infer", content, dict(headers or {}))
        answer = connection.getresponse()
        answer.read()
        return answer


def numbers_of(module: object, count: int) -> list[object]:
    tensor = module.InferInput("NUMBERS", [1, count], "INT64")  # type: ignore[attr-defined]
    tensor.set_data_from_numpy(np.zeros((1, count), np.int64))
    return [tensor]


def test_a_killed_gateway_loses_no_request(plain: System) -> None:
    last = plain.last_event()
    with Crowd(plain, pause_s=0.05) as crowd:
        os.kill(plain.status()["gateway"]["pid"], signal.SIGKILL)
        last = plain.wait_event("the gateway ended unexpectedly (signal 9)", after=last)
        plain.wait_event("gateway serves again", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()


def test_a_killed_edge_is_restarted(plain: System) -> None:
    before = plain.status()["edge"]
    last = plain.last_event()
    os.kill(before["pid"], signal.SIGKILL)
    last = plain.wait_event("the edge ended unexpectedly (signal 9)", after=last)
    plain.wait_event("edge serves again", after=last)
    assert post(plain, body([2, 3])).status == 200
    after = plain.status()["edge"]
    assert (after["state"], after["restarts"]) == ("ready", before["restarts"] + 1)
    assert after["pid"] != before["pid"]


def test_a_request_that_claims_a_huge_shape_does_not_reach_the_gateway(plain: System) -> None:
    pid = plain.status()["gateway"]["pid"]
    assert post(plain, body([1], [1, 4_000_000_000])).status == 400
    assert post(plain, body([1, 2])).status == 200
    assert plain.status()["gateway"]["pid"] == pid


def test_a_body_over_the_limit_is_refused(plain: System) -> None:
    assert post(plain, b"", {"Content-Length": str(2**20 + 1)}).status == 413
    with (
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{plain.grpc}") as client,
        pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*a message may have at most 1 MiB"),
    ):
        client.infer("words", numbers_of(tritonclient.grpc, 2**17))


def test_a_request_keeps_its_id(plain: System) -> None:
    assert post(plain, body([1]), {"X-Request-Id": "mine"}).getheader("x-request-id") == "mine"
    assert post(plain, body([1])).getheader("x-request-id")
    log = (plain.state / "logs" / "edge.log").read_text()
    assert "id=mine POST /v2/models/words/infer 200" in log


def test_the_edge_exports_metrics(plain: System, exporter: int) -> None:
    with urlopen(f"http://127.0.0.1:{exporter}/metrics", timeout=WAIT_LIMIT_S) as answer:
        assert "haproxy_frontend_http_requests_total" in answer.read().decode()


def test_the_gateway_has_no_ports_for_clients(plain: System) -> None:
    listening = Path(f"/proc/{plain.status()['gateway']['pid']}/cmdline").read_bytes().split(b"\0")
    assert any(argument.startswith(b"--grpc-address=unix:") for argument in listening)
    assert not any(argument.startswith(b"--http-port") for argument in listening)


def test_the_edge_loses_no_request_when_the_controller_is_killed(plain: System) -> None:
    last = plain.last_event()
    with Crowd(plain) as crowd:
        os.kill(plain.controller_pid(), signal.SIGKILL)
        plain.wait_started()
        plain.wait_event("adopt", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert plain.status()["edge"]["state"] == "ready"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate authority, and certificates of the edge and of a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
    openssl("req", "-x509", *key, "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("edge", "client"):
        openssl("req", *key, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        made = ("-out", f"{name}.pem", "-days", "2", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", *made)
    return folder


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path, installation: Installation
) -> Iterator[System]:
    """A deployment behind an edge with certificates, API keys and a rate limit."""
    system = System(tmp_path_factory.mktemp("guarded"))
    keys = certificates / "keys.txt"
    keys.write_text("# name, key\n" + "".join(f"{name} {key}\n" for name, key in KEYS.items()))
    tls = {name: str(certificates / file) for name, file in (("cert", "edge.pem"), ("key", "edge.key"))}
    edge = {
        "kind": "haproxy",
        "metrics": free_ports(1)[0],
        "tls": {**tls, "client_ca": str(certificates / "ca.pem")},
        "api_keys": str(keys),
        "limits": {"client_rps": RPS},
    }
    yield served(system, certificates, edge)
    system.end()


def secured(certificates: Path, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    if certificate:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def over_grpc(system: System, certificates: Path) -> tritonclient.grpc.InferenceServerClient:
    return tritonclient.grpc.InferenceServerClient(
        f"127.0.0.1:{system.grpc}",
        ssl=True,
        root_certificates=str(certificates / "ca.pem"),
        private_key=str(certificates / "client.key"),
        certificate_chain=str(certificates / "client.pem"),
    )


def test_http_needs_tls_and_an_api_key(guarded: System, certificates: Path) -> None:
    context = secured(certificates)
    assert post(guarded, body([1, 2]), {"X-Api-Key": KEYS["alice"]}, context=context).status == 200
    assert post(guarded, body([1, 2]), {"Authorization": f"Bearer {KEYS['alice']}"}, context=context).status == 200
    refused = post(guarded, body([1, 2]), {"Authorization": "Bearer guessed-0123456789abcdef"}, context=context)
    assert (refused.status, refused.getheader("www-authenticate")) == (401, "Bearer")
    assert post(guarded, body([1, 2]), context=context).status == 401
    with urlopen(f"https://127.0.0.1:{guarded.http}/v2/health/ready", timeout=WAIT_LIMIT_S, context=context) as answer:
        assert answer.status == 200


def test_grpc_needs_tls_and_an_api_key(guarded: System, certificates: Path) -> None:
    with over_grpc(guarded, certificates) as client:
        headers = {"authorization": f"Bearer {KEYS['alice']}"}
        answer = client.infer("words", numbers_of(tritonclient.grpc, 2), headers=headers)
        assert answer.as_numpy("TOTAL").tolist() == [[expected([0, 0])[1]]]
        with pytest.raises(InferenceServerException, match=r"UNAUTHENTICATED.*a valid API key is required"):
            client.infer("words", numbers_of(tritonclient.grpc, 2))
        assert client.is_server_ready()


def test_a_client_without_a_certificate_is_refused(guarded: System, certificates: Path) -> None:
    context = secured(certificates, certificate=False)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        post(guarded, body([1]), {"X-Api-Key": KEYS["alice"]}, context=context)
    with pytest.raises((OSError, http.client.HTTPException)):
        post(guarded, body([1]), {"X-Api-Key": KEYS["alice"]})


def test_a_client_over_its_rate_limit_does_not_affect_others(guarded: System, certificates: Path) -> None:
    context = secured(certificates)
    give_up_at = time.monotonic() + WAIT_LIMIT_S
    while True:
        answer = post(guarded, b"{}", {"X-Api-Key": KEYS["bob"]}, context=context)
        if answer.status == 429:
            break
        assert time.monotonic() < give_up_at
    assert answer.getheader("retry-after") == "1"
    with (
        over_grpc(guarded, certificates) as client,
        pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*exceeds its request rate"),
    ):
        for _ in range(2 * RPS):
            client.infer("words", numbers_of(tritonclient.grpc, 1), headers={"x-api-key": KEYS["bob"]})
    assert post(guarded, body([1]), {"X-Api-Key": KEYS["alice"]}, context=context).status == 200


def test_a_new_api_key_is_loaded_without_a_restart(guarded: System, certificates: Path) -> None:
    last = guarded.last_event()
    with (certificates / "keys.txt").open("a") as file:
        file.write("carol carol-0123456789abcdef\n")
    guarded.wait_event("the edge has reloaded its changed files", after=last)
    context = secured(certificates)
    assert post(guarded, body([1]), {"X-Api-Key": "carol-0123456789abcdef"}, context=context).status == 200
