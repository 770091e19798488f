"""`python -m benchmarks [NAME...]`: runs these benchmarks, or all, and writes their part of RESULTS.md."""

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

_HEAD = """\
# Benchmark results

Written by `make bench` (`python -m benchmarks`, or with the names of some). Each figure was measured in the run that
its section names, and so was the baseline that it is compared with.
"""

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


def page(reports: Sequence[Report], known: str = "") -> str:
    """RESULTS.md.

    Args:
        reports: Of the benchmarks that were run.
        known: The page so far, of which what was not run again is kept.
    """
    sections = _sections(known) | {report["name"]: _section(report) for report in reports}
    names = [*(name for name in NAMES if name in sections), *(name for name in sections if name not in NAMES)]
    return "\n".join([_HEAD, *(sections[name] for name in names)])


def _sections(known: str) -> dict[str, str]:
    """Name -> what a page has of a benchmark."""
    _, *found = known.split("\n## ")
    return {section.partition("\n")[0]: f"## {section.rstrip()}\n" for section in found}


def _section(report: Report) -> str:
    machine = report["machine"]
    lines = [
        f"## {report['name']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, {machine['system']}, "
        f"Python {machine['python']}; commit {_commit()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; "
        f"load average before it {machine['load_average']:g}.",
    ]
    if machine["load_average"] > 1:
        lines.append("The machine was shared with other work: times are longer than on an idle one; trust the ratios.")
    return "\n".join([*lines, "", table(report["figures"])]) + "\n"


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    return f"{commit} with changes that were not committed" if _git("status", "--porcelain", "-uno") else commit


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def main(names: Sequence[str]) -> int:
    """Runs these, or all, and writes their figures; 1 where one failed, whose figures are missing or old then."""
    if unknown := set(names) - set(NAMES):
        print(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
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
    sys.exit(main(sys.argv[1:]))
