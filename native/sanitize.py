"""Runs the tests of the core under sanitizers: `python -m native.sanitize [address] [thread] [-- PYTEST ARGUMENTS]`.

Python itself is not instrumented. So the sanitizer's runtime is loaded before it, and a report counts only if the
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
_REPORT = re.compile(r"^(?==+\n|(?:Direct|Indirect) leak|WARNING: )", re.MULTILINE)
_SOURCE_LINE = re.compile(r"\b(?:core|triton|testing)/\w+\.(?:cc|h):\d+")


def run_tests(sanitizer: Sanitizer, compiler: Compiler, arguments: Sequence[str], tests: Path = TESTS) -> list[str]:
    """Builds the library for a sanitizer and runs the tests with it.

    Args:
        sanitizer: Sanitizer to run under.
        compiler: Compiler whose sanitizer it is.
        arguments: Further arguments of pytest.
        tests: Tests to run; they take the library from `build_testing`.

    Returns:
        Sentences that say what is wrong; empty if nothing is.

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
        str(tests),
        *arguments,
    ]
    # The exit status tells nothing: see `environment`.
    subprocess.run(command, cwd=ROOT, env=environment(sanitizer, compiler, logs), check=False, preexec_fn=_fixed)
    return [*_failures(results), *reports(logs)]


def environment(sanitizer: Sanitizer, compiler: Compiler, logs: Path) -> dict[str, str]:
    """Environment of a Python that loads an instrumented library.

    Raises:
        BuildError: The compiler has no such sanitizer.
    """
    found = []
    for name in _RUNTIMES.get((compiler.kind, sanitizer), ()):
        told = subprocess.run(
            [*compiler.command, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if not Path(told).is_absolute():
            raise BuildError(
                f"{compiler.name} has no {name}. Install its sanitizer runtimes, or set CXX to another compiler."
            )
        found.append(str(Path(told).resolve()))
    if not found:
        raise BuildError(f"{compiler.name} has no runtimes of sanitizers. Install g++, or set CXX to another compiler.")
    log = f"log_path={logs / 'report'}"
    return {
        **os.environ,
        SANITIZER_VARIABLE: sanitizer,
        "LD_PRELOAD": ":".join(found),
        # Python's own allocator would hide from the sanitizer what belongs to whom.
        "PYTHONMALLOC": "malloc",
        # Leaks of Python are reported, too, so a report must not change the exit status of what tests start.
        "ASAN_OPTIONS": f"{log}:exitcode=0:detect_leaks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": f"{log}:print_stacktrace=1",
        "TSAN_OPTIONS": f"{log}:exitcode=0:halt_on_error=0:second_deadlock_stack=1",
    }


def reports(logs: Path) -> Iterator[str]:
    """Reports of a sanitizer in which the tested library appears."""
    for path in sorted(logs.glob("report.*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for part in _REPORT.split(text):
            if TESTING in part or _SOURCE_LINE.search(part):
                yield part.strip("=\n ")


def _failures(results: Path) -> Iterator[str]:
    """Says what is wrong with a run of pytest, by the results that it writes at its end."""
    try:
        suite = ElementTree.parse(results).getroot()[0]
    except (FileNotFoundError, ElementTree.ParseError):
        yield "The tests did not run to their end."
        return
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    if failed:
        yield f"{failed} of {suite.attrib['tests']} tests failed."
    if suite.attrib["tests"] == "0":
        yield "No test ran."


def _fixed() -> None:
    """Turns off the randomisation of addresses, which ThreadSanitizer cannot always bear."""
    ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; its exit status."""
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
            wrong = run_tests(sanitizer, compiler, rest)
            for story in wrong:
                print(story, end="\n\n", file=sys.stderr)
            failed = failed or bool(wrong)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
