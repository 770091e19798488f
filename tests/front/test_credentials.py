from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.front.credentials import check_gateway_tls
from jigsaw_triton.front.model import GatewayTls
from jigsaw_triton.servers.certificates.authority import create_authority, issue

LATER = datetime.now(UTC) + timedelta(days=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority that is valid for longer than the certificate of node `front`, and another one that is not."""
    create_authority(tmp_path / "ca", "ca")
    create_authority(tmp_path / "short", "short", days=10)
    for node, days in (("front", 10), ("other", 30)):
        issue(tmp_path / "ca", node, days=days)
    return tmp_path


def tls(folder: Path, ca: str = "ca/ca.pem", cert: str = "front/cert.pem", key: str = "front/key.pem") -> GatewayTls:
    return GatewayTls(str(folder / ca), None, str(folder / "ca" / cert), str(folder / "ca" / key))


def test_valid_files_are_accepted(folder: Path) -> None:
    check_gateway_tls(tls(folder))
    check_gateway_tls(GatewayTls(str(folder / "ca" / "ca.pem")))


def test_a_bundle_may_have_authorities_that_have_expired(folder: Path) -> None:
    bundle = folder / "bundle.pem"
    bundle.write_bytes((folder / "short" / "ca.pem").read_bytes() + (folder / "ca" / "ca.pem").read_bytes())
    check_gateway_tls(GatewayTls(str(bundle)), now=LATER)


@pytest.mark.parametrize(
    ("files", "now", "message"),
    [
        ({"ca": "none.pem"}, None, "none.pem: the certificate cannot be read: No such file"),
        ({"ca": "ca/front/key.pem"}, None, "the file holds no certificate"),
        ({"ca": "short/ca.pem"}, LATER, "the certificate of 'jigsaw-triton short' expired on "),
        ({}, LATER, "front/cert.pem: the certificate of 'front' expired on "),
        ({"cert": "other/cert.pem"}, None, "front/key.pem: the private key is not that of the certificate"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, files: dict[str, str], now: datetime | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_gateway_tls(tls(folder, **files), now=now)
