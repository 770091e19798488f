"""`python -m benchmarks [NAME...]` runs these benchmarks, or all, and writes their sections of RESULTS.md.

`NAME:PART` runs one part of a benchmark that has parts, and writes a section of its own.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.harness import limit_s, table

NAMES = (
    "planner",
    "sharing",
    "queueing",
    "held",
    "profiles",
    "ablation",
    "trials",
    "dataplane",
    "controller",
    "cluster",
    "console",
    "mig",
)
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"

_GRACE_S = 60.0

_HEAD = """\
# Benchmark results

`make bench` writes this page. It runs `python -m benchmarks`, which takes names of benchmarks to run only some. Each
figure and its baseline were measured in the same run, which the section names.
"""

Report = Mapping[str, Any]


def run(name: str) -> Report | None:
    """Runs one benchmark in a process of its own. Returns its report, or None if it failed."""
    # In a session of its own the benchmark gets Ctrl-C once, from this process, and takes down what it started.
    benchmark = name.partition(":")[0]
    with subprocess.Popen(
        command(name), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=limit_s(benchmark) + _GRACE_S)
        except BaseException:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    report: Report | None = json.loads(out) if process.returncode == 0 else None
    return {**report, "name": name} if report is not None else None


def command(name: str) -> list[str]:
    """Returns the command line of a benchmark or of one of its parts."""
    benchmark, *parts = name.split(":")
    return [sys.executable, "-m", f"benchmarks.{benchmark}", "-o", "json", *parts]


def end_on_sigterm() -> None:
    """Lets SIGTERM end this process like Ctrl-C, with the benchmark that runs."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def page(reports: Sequence[Report], known: str = "") -> str:
    """Returns the text of RESULTS.md.

    Args:
        reports: Reports of the benchmarks that were run.
        known: Text of the page so far; sections of benchmarks that were not run again are kept.
    """
    new = {report["name"]: _section(report) for report in reports}
    # The section of a whole benchmark replaces those of its parts.
    sections = {name: text for name, text in _sections(known).items() if name.partition(":")[0] not in new} | new
    known_names = [name for name in sections if name.partition(":")[0] in NAMES]
    names = sorted(known_names, key=lambda name: (NAMES.index(name.partition(":")[0]), name))
    names += [name for name in sections if name not in names]
    return "\n".join([_HEAD, *(sections[name] for name in names)])


def _sections(known: str) -> dict[str, str]:
    """Splits a page into its sections. Returns name of the benchmark -> section."""
    _, *found = known.split("\n## ")
    return {section.partition("\n")[0]: f"## {section.rstrip()}\n" for section in found}


def _section(report: Report) -> str:
    machine = report["machine"]
    lines = [
        f"## {report['name']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, {machine['system']}, "
        f"Python {machine['python']}; commit {_commit()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; "
        f"load average before the run {machine['load_average']:g}.",
    ]
    if machine["load_average"] > 1:
        lines.append(
            "The machine was shared with other work, so times are longer than on an idle machine. Ratios are reliable."
        )
    return "\n".join([*lines, "", table(report["figures"])]) + "\n"


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    return f"{commit} with uncommitted changes" if _git("status", "--porcelain", "-uno") else commit


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def main(names: Sequence[str]) -> int:
    """Runs these benchmarks, or all, and writes their figures.

    Returns:
        Exit code. It is 1 if a benchmark failed; the figures of that benchmark are then missing or old.
    """
    if unknown := {name for name in names if name.partition(":")[0] not in NAMES}:
        print(f"unknown benchmark {', '.join(sorted(unknown))}; the benchmarks are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    names = names or NAMES
    try:
        found = [run(name) for name in names]
    except KeyboardInterrupt:
        return 130
    reports = [report for report in found if report is not None]
    if reports:
        known = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        text = page(reports, known if len(reports) < len(NAMES) else "")
        RESULTS.write_text(text, encoding="utf-8")
        print(text)
    return 0 if len(reports) == len(names) else 1


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main(sys.argv[1:]))
