from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from jigsaw_triton.console.web.settings import ConsoleSettings, read_password
from jigsaw_triton.errors import InputError

PASSWORD = "correct horse battery"
PEM = Path("cert.pem")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_addresses_of_this_machine_alone_need_nothing(address: str) -> None:
    ConsoleSettings(address=address).checked()


@pytest.mark.parametrize(
    "settings",
    [
        ConsoleSettings(address="0.0.0.0"),
        ConsoleSettings(address="::"),
        ConsoleSettings(address="10.0.0.1", password=PASSWORD),
        ConsoleSettings(address="10.0.0.1", tls_cert=PEM, tls_key=PEM),
    ],
)
def test_other_addresses_need_tls_and_a_password(settings: ConsoleSettings) -> None:
    with pytest.raises(InputError, match="other machines could read") as caught:
        settings.checked()
    assert "--behind-proxy" in caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        ConsoleSettings(address="0.0.0.0", tls_cert=PEM, tls_key=PEM, password=PASSWORD),
        ConsoleSettings(address="0.0.0.0", behind_proxy=True),
    ],
)
def test_other_addresses_are_safe_with_tls_and_a_password_or_behind_a_proxy(settings: ConsoleSettings) -> None:
    assert settings.checked() is settings
    assert settings.encrypted


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ConsoleSettings(tls_cert=PEM), "--tls-key"),
        (ConsoleSettings(tls_key=PEM), "--tls-cert"),
        (ConsoleSettings(password="short"), "fewer than 12 characters"),
        (ConsoleSettings(address="gpu1"), "'gpu1' is not an IP address"),
    ],
)
def test_wrong_settings_are_refused(settings: ConsoleSettings, words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings.checked()


def test_a_certificate_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "cert.pem"
    bad.write_text("no certificate")
    with pytest.raises(InputError, match="the certificate cannot be used"):
        ConsoleSettings(tls_cert=bad, tls_key=bad).tls()
    assert ConsoleSettings().tls() is None


def test_a_key_with_a_passphrase_is_an_error_and_asks_nobody(tmp_path: Path) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gpu1")])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    settings = ConsoleSettings(tls_cert=cert_file, tls_key=key_file)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(InputError, match="the certificate cannot be used") as caught:
        settings.tls()
    assert "without a passphrase" in caught.value.hint
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert settings.tls() is not None


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("127.0.0.1:8080", True),
        ("127.0.0.1", True),
        ("localhost:9090", True),
        ("LOCALHOST", True),
        ("[::1]:8080", True),
        ("10.0.0.7:8080", True),
        ("gpu1.example.org:8080", True),
        ("GPU1.example.org", True),
        ("evil.example.com:8080", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_names_of_other_sites_are_no_hosts_of_the_console(header: str, accepted: bool) -> None:
    assert ConsoleSettings(hosts=("gpu1.example.org",)).accepts_host(header) is accepted


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (ConsoleSettings(), "http://127.0.0.1:8081"),
        (ConsoleSettings(address="::1"), "http://[::1]:8081"),
        (ConsoleSettings(address="0.0.0.0", tls_cert=PEM, tls_key=PEM), "https://127.0.0.1:8081"),
        (ConsoleSettings(address="::", tls_cert=PEM, tls_key=PEM), "https://[::1]:8081"),
        (ConsoleSettings(address="0.0.0.0", tls_cert=PEM, tls_key=PEM, hosts=("gpu1",)), "https://gpu1:8081"),
        (ConsoleSettings(behind_proxy=True, hosts=("console.example.org",)), "https://console.example.org"),
    ],
)
def test_the_url_is_the_one_that_browsers_reach(settings: ConsoleSettings, url: str) -> None:
    assert settings.url(8081) == url


def test_a_password_is_the_first_line_of_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\nsecond line\n")
    file.chmod(0o644)
    with pytest.raises(InputError, match="other users can read"):
        read_password(file)
    file.chmod(0o600)
    assert read_password(file) == PASSWORD
    with pytest.raises(InputError, match="cannot be read"):
        read_password(tmp_path / "missing")
