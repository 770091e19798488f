"""`certificates`: an authority, the files of nodes, and what is shown of them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import certificates
from jigsaw_triton.servers.certificates.credentials import check_credentials, credentials_in
from tests.cli.conftest import Run


def test_an_operator_makes_the_files_of_a_node(run: Run) -> None:
    created = run("certificates", "create", "--name", "staging")
    assert created.exit_code == 0
    assert (
        "created the authority jigsaw-triton staging in certificates; its certificate expires on 20" in created.stdout
    )
    issued = run("certificates", "issue", "gpu-1", "gpu-1.example", "10.0.0.1", "--days", "90")
    assert issued.exit_code == 0
    assert "issued the certificate of node gpu-1, which expires on 20" in issued.stdout
    assert "copy cert.pem, key.pem and ca.pem from certificates/gpu-1 to the node" in issued.stdout
    check_credentials(credentials_in(Path("certificates/gpu-1")), "gpu-1")
    shown = run("certificates", "show")
    assert shown.exit_code == 0
    assert [line.split("  ")[0] for line in shown.stdout.splitlines()] == [
        "certificate",
        "jigsaw-triton staging",
        "gpu-1",
    ]
    assert "gpu-1.example and 10.0.0.1" in shown.stdout


def test_the_document_says_when_each_certificate_expires(run: Run) -> None:
    run("certificates", "create", "--folder", "ca")
    made = json.loads(run("certificates", "issue", "a", "--folder", "ca", "--days", "20", "-o", "json").stdout)
    assert (made["subject"], made["nodes"], made["hosts"], made["file"]) == ("a", ["a"], [], "ca/a/cert.pem")
    found = json.loads(run("certificates", "show", "--folder", "ca", "-o", "json").stdout)["certificates"]
    assert [one["state"] for one in found] == ["ok", "expires soon"]
    assert [one["days_left"] for one in found] == [3649, 19]
    assert datetime.fromisoformat(found[1]["expires"]) - datetime.now(UTC) < timedelta(days=20)
    assert json.loads(run("certificates", "show", "ca/a/cert.pem", "-o", "json").stdout)["certificates"] == found[1:]


@pytest.mark.parametrize(("days", "state"), [(21, "expired"), (-1, "not valid yet")])
def test_a_certificate_that_is_not_valid_changes_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, days: int, state: str
) -> None:
    run("certificates", "create")
    run("certificates", "issue", "a", "--days", "20")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    monkeypatch.setattr(certificates, "datetime", Clock)
    shown = run("certificates", "show", "certificates/a/cert.pem")
    assert shown.exit_code == 4
    assert state in shown.stdout


def test_mistakes_have_hints(run: Run) -> None:
    missing = run("certificates", "issue", "a")
    assert missing.exit_code == 4
    assert "there is no authority" in missing.stderr
    assert "jigsaw-triton certificates create" in missing.stderr
    run("certificates", "create")
    again = run("certificates", "create")
    assert again.exit_code == 4
    assert "--renew" in again.stderr
    assert run("certificates", "create", "--renew").exit_code == 0
    assert run("certificates", "issue", "a", "no host").exit_code == 2
    assert run("certificates", "issue", "a", "--days", "0").exit_code == 2
    assert run("certificates", "show", "missing.pem").exit_code == 2
