from pathlib import Path

import pytest

from native import sanitize
from native.compiler import BuildError, Compiler
from native.sanitize import environment, reports

LEAKS = """
=================================================================
==71==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 112 byte(s) in 1 object(s) allocated from:
    #0 0x7f in calloc (/usr/lib/libasan.so.8+0xf4610)
    #1 0x11 in PyThread_allocate_lock Python/thread.c:5

Direct leak of 128 byte(s) in 1 object(s) allocated from:
    #0 0x7f in operator new[](unsigned long) (/usr/lib/libasan.so.8+0xf58d8)
    #1 0x7f in Queue::Add core/queue.cc:5
    #2 0x7f  (/lib/libffi.so.8+0x76cd)

SUMMARY: AddressSanitizer: 240 byte(s) leaked in 2 allocation(s).
"""
RACES = """==================
WARNING: ThreadSanitizer: data race (pid=8)
  Read of size 4 at 0x7f by thread T1:
    #0 PyThread_acquire_lock <null> (libpython3.12.so.1.0+0x29)
==================
==================
WARNING: ThreadSanitizer: data race (pid=8)
  Read of size 4 at 0x7f by thread T1:
    #0 Queue::Take <null> (libjigsaw_core_testing.so+0x2602)
==================
"""


@pytest.mark.parametrize(("text", "found"), [(LEAKS, "Queue::Add core/queue.cc:5"), (RACES, "Queue::Take")])
def test_reports_about_other_libraries_are_ignored(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "report.71").write_text(text)
    (report,) = reports(tmp_path)
    assert found in report
    assert "Thread_a" not in report


def test_the_sanitizer_runtime_is_preloaded(compiler: Compiler, tmp_path: Path) -> None:
    env = environment("address", compiler, tmp_path)
    assert "asan" in env["LD_PRELOAD"].partition(":")[0]
    assert env["JIGSAW_SANITIZER"] == "address"


def test_a_compiler_without_sanitizers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"zig 0\.17\.1 has no sanitizer runtimes"):
        environment("thread", Compiler(("zig",), "zig", "0.17.1"), tmp_path)


def test_an_unknown_sanitizer_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert sanitize.main(["memory"]) == 2
    assert "Use address, thread or both" in capsys.readouterr().err


def test_an_incomplete_test_run_is_reported(tmp_path: Path) -> None:
    assert list(sanitize._failures(tmp_path / "none.xml")) == ["The test run ended early: pytest wrote no results."]
    (tmp_path / "results.xml").write_text('<testsuites><testsuite errors="1" failures="2" tests="9"/></testsuites>')
    assert list(sanitize._failures(tmp_path / "results.xml")) == ["3 of 9 tests failed."]
