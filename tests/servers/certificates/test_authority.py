"""The authority of a deployment: what it writes, and what it refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.certificates.authority import create_authority, issue, issued, provide
from jigsaw_triton.servers.certificates.credentials import check_credentials, credentials_in, read_certificates


def test_a_node_gets_its_names_and_files_that_only_its_owner_can_use(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "test")
    made = issue(tmp_path / "ca", "gpu-1", ["gpu-1.example", "10.0.0.1", "::1"], days=30)
    assert made.info.nodes == ("gpu-1",)
    assert made.info.hosts == ("gpu-1.example", "10.0.0.1", "::1")
    assert (made.info.subject, made.info.issuer) == ("gpu-1", "jigsaw-triton test")
    assert timedelta(days=29) < made.info.expires - datetime.now(UTC) <= timedelta(days=30)
    assert made.info.begins < datetime.now(UTC) - timedelta(minutes=30), "clocks of nodes differ"
    keys = [tmp_path / "ca" / "ca.key.pem", credentials_in(made.path.parent).key]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert {path.name for path in made.path.parent.iterdir()} == {"cert.pem", "key.pem", "ca.pem"}


def test_a_renewed_certificate_keeps_its_hosts_and_has_a_new_key(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    files = credentials_in(issue(tmp_path, "a", ["a.example"]).path.parent)
    key = files.key.read_bytes()
    assert issue(tmp_path, "a").info.hosts == ("a.example",)
    assert issue(tmp_path, "a", ["b.example"]).info.hosts == ("b.example",)
    assert files.key.read_bytes() != key
    check_credentials(files, "a")


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    authority = create_authority(tmp_path, "test", days=30)
    assert issue(tmp_path, "a").info.expires <= authority.info.expires


def test_an_authority_is_not_replaced_by_mistake(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    key = (tmp_path / "ca.key.pem").read_bytes()
    with pytest.raises(StateError, match=r"there is an authority already; .*--renew"):
        create_authority(tmp_path, "test")
    renewed = create_authority(tmp_path, "", renew=True)
    assert (tmp_path / "ca.key.pem").read_bytes() == key
    assert renewed.info.subject == "jigsaw-triton test"


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    for act in (
        lambda: issue(tmp_path, "a"),
        lambda: issued(tmp_path),
        lambda: create_authority(tmp_path, "", renew=True),
    ):
        with pytest.raises(StateError, match="there is no authority; create one: jigsaw-triton certificates create"):
            act()


@pytest.mark.parametrize("node", ["", "../a", "a.b", "1a", "a" * 65, "a b"])
def test_a_name_that_no_node_can_have_is_refused(tmp_path: Path, node: str) -> None:
    create_authority(tmp_path, "test")
    with pytest.raises(InputError, match="is no name of a node"):
        issue(tmp_path, node)


@pytest.mark.parametrize("host", ["", "a_b", "-a", "a..b", "10.0.0.1:80", "https://a", "a b", "x" * 64])
def test_a_malformed_host_is_refused(tmp_path: Path, host: str) -> None:
    create_authority(tmp_path, "test")
    with pytest.raises(InputError, match="is neither an address nor a name of a host"):
        issue(tmp_path, "a", [host])
    assert not (tmp_path / "a").exists()


def test_an_authoritys_key_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    (tmp_path / "ca.key.pem").chmod(0o644)
    with pytest.raises(InputError, match="the private key is open to other users"):
        issue(tmp_path, "a")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the file cannot be written: Not a directory"):
        create_authority(tmp_path / "file" / "ca", "test")


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    (tmp_path / "a" / "cert.pem" / "in the way").mkdir(parents=True)
    with pytest.raises(InputError, match="the file cannot be written: Is a directory"):
        issue(tmp_path, "a", ["a.example"])
    assert not list((tmp_path / "a").glob(".*"))


def test_all_certificates_of_a_folder_are_listed(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    for node in "ba":
        issue(tmp_path, node)
    assert [one.info.subject for one in issued(tmp_path)] == ["jigsaw-triton test", "a", "b"]
    assert read_certificates(tmp_path / "a" / "ca.pem") == read_certificates(tmp_path / "ca.pem")


def test_certificates_are_provided_and_renewed_before_they_expire(tmp_path: Path) -> None:
    provide(tmp_path, "test", ("a", "b"))
    assert [one.info.subject for one in issued(tmp_path)] == ["jigsaw-triton test", "a", "b"]
    before = credentials_in(tmp_path / "a").cert.read_bytes()
    # It has expired, since it is valid for an hour before it was made.
    issue(tmp_path, "b", days=0)
    old = credentials_in(tmp_path / "b").cert.read_bytes()
    provide(tmp_path, "test", ("a", "b"))
    assert credentials_in(tmp_path / "a").cert.read_bytes() == before
    assert credentials_in(tmp_path / "b").cert.read_bytes() != old
