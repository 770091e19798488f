"""Runs the tests of the core under sanitizers: `python -m native.sanitize [address] [thread] [-- PYTEST ARGUMENTS]`.

Python itself is not instrumented. Therefore the sanitizer's runtime is preloaded, and a report counts only if the
tested library appears in it.
"""

import ctypes
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

from native.build import FOLDER, ROOT, SANITIZER_VARIABLE, TESTING, Sanitizer, build_testing
from native.compiler import BuildError, Compiler, find_compiler

TESTS = ROOT / "tests" / "native"
_RUNTIMES = {
    ("g++", "address"): ("libasan.so", "libubsan.so", "libstdc++.so"),
    ("g++", "thread"): ("libtsan.so", "libstdc++.so"),
    ("clang++", "address"): (f"libclang_rt.asan-{os.uname().machine}.so", "libstdc++.so"),
    ("clang++", "thread"): (f"libclang_rt.tsan-{os.uname().machine}.so", "libstdc++.so"),
}
_ADDR_NO_RANDOMIZE = 0x0040000
_TEST_TIMEOUT_S = 1800
"""Seconds that a test may take: many times as long as without a sanitizer."""
_REPORT = re.compile(r"^(?==+\n|(?:Direct|Indirect) leak|WARNING: )", re.MULTILINE)
_SOURCE_LINE = re.compile(r"\b(?:core|onnx|triton|testing)/\w+\.(?:cc|h):\d+")


def run_tests(sanitizer: Sanitizer, compiler: Compiler, arguments: Sequence[str], tests: Path = TESTS) -> list[str]:
    """Builds the library for a sanitizer and runs the tests with it.

    Args:
        sanitizer: Sanitizer to run under.
        compiler: Compiler that provides the sanitizer.
        arguments: Further arguments of pytest.
        tests: Tests to run; they load the library of `build_testing`.

    Returns:
        Descriptions of the errors found; empty if there are none.

    Raises:
        BuildError: The library cannot be built, or the compiler has no such sanitizer.
    """
    build_testing(sanitizer=sanitizer, compiler=compiler)
    logs = FOLDER / "reports" / sanitizer
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.iterdir():
        old.unlink()
    results = logs / "results.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--junitxml={results}",
        f"--timeout={_TEST_TIMEOUT_S}",
        str(tests),
        *arguments,
    ]
    # The exit status is not meaningful: see `environment`.
    subprocess.run(command, cwd=ROOT, env=environment(sanitizer, compiler, logs), check=False, preexec_fn=_disable_aslr)
    return [*_failures(results), *reports(logs)]


def environment(sanitizer: Sanitizer, compiler: Compiler, logs: Path) -> dict[str, str]:
    """Environment for a Python process that loads an instrumented library.

    Raises:
        BuildError: The compiler has no such sanitizer.
    """
    found = []
    for name in _RUNTIMES.get((compiler.kind, sanitizer), ()):
        path = subprocess.run(
            [*compiler.command, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if not Path(path).is_absolute():
            raise BuildError(
                f"{compiler.name} has no {name}. Install its sanitizer runtimes, or set CXX to another compiler."
            )
        found.append(str(Path(path).resolve()))
    if not found:
        raise BuildError(f"{compiler.name} has no sanitizer runtimes. Install g++, or set CXX to another compiler.")
    log = f"log_path={logs / 'report'}"
    return {
        **os.environ,
        SANITIZER_VARIABLE: sanitizer,
        "LD_PRELOAD": ":".join(found),
        # Python's own allocator would hide allocations from the sanitizer.
        "PYTHONMALLOC": "malloc",
        # Leaks of Python are also reported, so a report must not change the exit status of processes that tests start.
        "ASAN_OPTIONS": f"{log}:exitcode=0:detect_leaks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": f"{log}:print_stacktrace=1",
        "TSAN_OPTIONS": f"{log}:exitcode=0:halt_on_error=0:second_deadlock_stack=1",
    }


def reports(logs: Path) -> Iterator[str]:
    """Yields the reports of a sanitizer in which the tested library appears."""
    for path in sorted(logs.glob("report.*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for part in _REPORT.split(text):
            if TESTING in part or _SOURCE_LINE.search(part):
                yield part.strip("=\n ")


def _failures(results: Path) -> Iterator[str]:
    """Yields a description of each error in a run of pytest, from the results file that it writes at its end."""
    try:
        suite = ElementTree.parse(results).getroot()[0]
    except (FileNotFoundError, ElementTree.ParseError):
        yield "The test run ended early: pytest wrote no results."
        return
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    if failed:
        yield f"{failed} of {suite.attrib['tests']} tests failed."
    if suite.attrib["tests"] == "0":
        yield "No test ran."


def _disable_aslr() -> None:
    """Turns off address space randomisation, with which ThreadSanitizer sometimes cannot start."""
    ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    names, rest = given[:at], given[at + 1 :]
    if unknown := set(names) - set(get_args(Sanitizer)):
        print(f"Unknown sanitizers: {shlex.join(sorted(unknown))}. Use address, thread or both.", file=sys.stderr)
        return 2
    failed = False
    try:
        compiler = find_compiler()
        for sanitizer in get_args(Sanitizer):
            if names and sanitizer not in names:
                continue
            print(f"tests/native with the {sanitizer} sanitizer of {compiler.name}", flush=True)
            errors = run_tests(sanitizer, compiler, rest)
            for description in errors:
                print(description, end="\n\n", file=sys.stderr)
            failed = failed or bool(errors)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
