import json
import os
import time
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.condemned import Condemned, Damaged, has_files, listens, parse, take

REPORT = {"worker": "n-0-1g-0", "model": "app.t0.a.g1", "reason": "it hangs", "identity": 7}


def exists(_worker: str) -> Path:
    """Returns a path that exists, in place of that of the worker's socket."""
    return Path("/")


def test_a_report_is_read_and_removed(tmp_path: Path) -> None:
    (tmp_path / "n-0-1g-0.json").write_text(json.dumps(REPORT))
    (tmp_path / "n-0-1g-1.json.new").write_text("{")
    (found,) = take(tmp_path, exists)
    assert found == Condemned("n-0-1g-0", "app.t0.a.g1", "it hangs", 7)
    assert str(found) == "worker n-0-1g-0, model app.t0.a.g1: it hangs"
    assert [path.name for path in tmp_path.iterdir()] == ["n-0-1g-1.json.new"]
    assert take(tmp_path, exists) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is not JSON"),
        ("[]", "it lacks worker, model, reason or identity"),
        (json.dumps({**REPORT, "identity": "7"}), "it lacks worker, model, reason or identity"),
        (json.dumps({**REPORT, "worker": "another"}), "it names another worker, 'another'"),
    ],
)
def test_a_damaged_report_is_described_and_removed(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "n-0-1g-0.json").write_text(text)
    (found,) = take(tmp_path, exists)
    assert isinstance(found, Damaged)
    assert f"the gateway's report n-0-1g-0.json, which cannot be read: {reason}" in str(found)
    assert not list(tmp_path.iterdir())


def test_a_report_that_is_not_utf8_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_bytes(b"\xff\xfe")
    assert isinstance(take(tmp_path, exists)[0], Damaged)


def test_a_missing_folder_means_no_reports(tmp_path: Path) -> None:
    assert take(tmp_path / "condemned", exists) == []
    assert not has_files(tmp_path / "condemned")


def test_reports_are_noticed(tmp_path: Path) -> None:
    assert not has_files(tmp_path)
    (tmp_path / "n-0-1g-0.json").touch()
    assert has_files(tmp_path)


def test_deeply_nested_json_is_a_damaged_report() -> None:
    assert isinstance(parse("w.json", "[" * 100_000), Damaged)


def test_a_socket_is_recognised_by_its_time(tmp_path: Path) -> None:
    socket = tmp_path / "w.sock"
    assert not listens(socket, 7)
    socket.touch()
    assert listens(socket, socket.stat().st_mtime_ns)
    assert not listens(socket, socket.stat().st_mtime_ns + 1)


def test_a_report_about_a_worker_whose_socket_was_just_removed_waits_for_the_socket(tmp_path: Path) -> None:
    def socket_of(worker: str) -> Path:
        return tmp_path / f"{worker}.sock"

    for worker in ("a", "b"):
        (tmp_path / f"{worker}.json").write_text(json.dumps({**REPORT, "worker": worker}))
    # With a time in the future, the report about `a` is recent however long the test takes.
    os.utime(tmp_path / "a.json", (time.time() + 3600, time.time() + 3600))
    os.utime(tmp_path / "b.json", (time.time() - 3600, time.time() - 3600))
    assert [str(found) for found in take(tmp_path, socket_of)] == ["worker b, model app.t0.a.g1: it hangs"]
    socket_of("a").touch()
    assert [str(found) for found in take(tmp_path, socket_of)] == ["worker a, model app.t0.a.g1: it hangs"]
