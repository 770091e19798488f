"""`python -m benchmarks`: runs all benchmarks and writes RESULTS.md."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import limit_s, table

NAMES = ("planner", "sharing", "queueing", "held", "dataplane", "controller", "mig")
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"

_GRACE_S = 60.0

Report = Mapping[str, Any]


def run(name: str) -> Report | None:
    """The report of one benchmark, run in a process of its own; None where it failed."""
    # A session of its own, so that Ctrl-C reaches it once, through this process, and it takes down what it started.
    command = [sys.executable, "-m", f"benchmarks.{name}", "-o", "json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=limit_s(name) + _GRACE_S)
        except BaseException:
            process.terminate()
            process.wait(_GRACE_S)
            raise
    report: Report | None = json.loads(out) if process.returncode == 0 else None
    return report


def page(reports: Sequence[Report]) -> str:
    """RESULTS.md."""
    machine = reports[0]["machine"]
    loads = ", ".join(f"{report['machine']['load_average']:g}" for report in reports)
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench` (`python -m benchmarks`). Each figure was measured in this run, and so was the",
        "baseline that it is compared with.",
        "",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, {machine['system']},"
        f" Python {machine['python']}",
        f"- commit: {_commit()}",
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- load average before each benchmark: {loads}",
    ]
    if max(report["machine"]["load_average"] for report in reports) > 1:
        lines.append(
            "- The machine was shared with other work: times are longer than on an idle one; trust the ratios."
        )
    for report in reports:
        lines += ["", f"## {report['name']}", "", table(report["figures"])]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    return f"{commit} with changes that were not committed" if _git("status", "--porcelain", "-uno") else commit


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def main() -> int:
    """Runs all; 1 where one failed, whose figures are missing then."""
    try:
        found = [run(name) for name in NAMES]
    except KeyboardInterrupt:
        return 130
    reports = [report for report in found if report is not None]
    if reports:
        text = page(reports)
        RESULTS.write_text(text, encoding="utf-8")
        print(text)
    return 0 if len(reports) == len(NAMES) else 1


if __name__ == "__main__":
    sys.exit(main())
