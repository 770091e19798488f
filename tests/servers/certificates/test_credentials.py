"""Checks of certificates: each error names the file and the remedy."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import (
    Credentials,
    check_credentials,
    credentials_in,
    info,
    is_open,
    read_certificates,
)


@pytest.fixture
def files(tmp_path: Path) -> Credentials:
    create_authority(tmp_path / "ca", "test")
    return credentials_in(issue(tmp_path / "ca", "a", ["a.example", "10.0.0.1"], days=10).path.parent)


def other(folder: Path) -> Credentials:
    create_authority(folder / "other", "other")
    return credentials_in(issue(folder / "other", "a").path.parent)


def test_good_credentials_expire_with_their_first_certificate(files: Credentials) -> None:
    expires = check_credentials(files, "a")
    assert expires == info(read_certificates(files.cert)[0]).expires
    assert timedelta(days=9) < expires - datetime.now(UTC) <= timedelta(days=10)


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
def test_a_missing_file_is_refused(files: Credentials, name: str) -> None:
    path: Path = getattr(files, name)
    path.unlink()
    with pytest.raises(InputError, match=f"{path}: the .* cannot be read: No such file"):
        check_credentials(files)


@pytest.mark.parametrize(("name", "words"), [("cert", "no certificate"), ("key", "no private key"), ("ca", "no cert")])
@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_pem_file_is_refused(files: Credentials, name: str, words: str, content: bytes) -> None:
    path: Path = getattr(files, name)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: the file holds {words}.*BEGIN"):
        check_credentials(files)


def test_a_key_that_is_open_to_others_is_refused(files: Credentials) -> None:
    files.key.chmod(0o640)
    with pytest.raises(InputError, match=f"open to other users; run chmod 600 {files.key}"):
        check_credentials(files)


def test_a_key_of_another_certificate_is_refused(files: Credentials, tmp_path: Path) -> None:
    files.key.write_bytes(other(tmp_path).key.read_bytes())
    with pytest.raises(InputError, match=f"{files.key}: the private key is not that of the certificate {files.cert}"):
        check_credentials(files)


def test_a_certificate_of_another_authority_is_refused(files: Credentials, tmp_path: Path) -> None:
    foreign = other(tmp_path)
    message = (
        f"{foreign.cert}: the certificate was issued by 'jigsaw-triton other', which is no authority in {files.ca}"
    )
    with pytest.raises(InputError, match=message):
        check_credentials(Credentials(foreign.cert, foreign.key, files.ca))


def test_an_authority_of_the_same_name_is_another_one(files: Credentials, tmp_path: Path) -> None:
    create_authority(tmp_path / "twin", "test")
    with pytest.raises(InputError, match="which is no authority in"):
        check_credentials(Credentials(files.cert, files.key, tmp_path / "twin" / "ca.pem"))


@pytest.mark.parametrize(("days", "words"), [(11, "'a' expired on"), (-1, "'a' is valid only from"), (4000, "expired")])
def test_a_certificate_that_is_not_valid_now_is_refused(files: Credentials, days: int, words: str) -> None:
    with pytest.raises(InputError, match=f"{files.cert}: the certificate of {words}|{words}"):
        check_credentials(files, now=datetime.now(UTC) + timedelta(days=days))


def test_an_authority_that_has_expired_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path, "test", days=5)
    files = credentials_in(issue(tmp_path, "a").path.parent)
    create_authority(tmp_path, "test", days=20, renew=True)
    longer = credentials_in(issue(tmp_path, "b").path.parent)
    later = datetime.now(UTC) + timedelta(days=7)
    with pytest.raises(InputError, match=f"{files.ca}: the certificate of 'jigsaw-triton test' expired"):
        check_credentials(Credentials(longer.cert, longer.key, files.ca), now=later)
    check_credentials(longer, now=later)


def test_a_certificate_of_another_node_is_refused(files: Credentials) -> None:
    with pytest.raises(InputError, match="the certificate is that of node a; use the certificate of node b, or issue"):
        check_credentials(files, "b")


def test_a_renewed_authority_accepts_certificates_from_before(files: Credentials) -> None:
    folder = files.cert.parent.parent
    create_authority(folder, "test", renew=True)
    check_credentials(Credentials(files.cert, files.key, folder / "ca.pem"))


def test_several_authorities_may_be_trusted_during_a_change(files: Credentials, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(other(tmp_path).ca.read_bytes() + files.ca.read_bytes())
    check_credentials(Credentials(files.cert, files.key, both))


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "refused"),
    [
        (0o600, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o440, 0, 1000, False),
        (0o440, 0, 0, True),
        (0o460, 0, 1000, True),
        (0o444, 0, 1000, True),
    ],
)
def test_a_key_is_open_unless_only_its_owner_or_a_group_of_root_may_read_it(
    mode: int, owner: int, reader: int, refused: bool
) -> None:
    assert is_open(mode, owner, reader) is refused
