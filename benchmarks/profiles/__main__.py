"""Command line of the benchmark of profiles."""

import sys
from collections.abc import Callable, Mapping

from benchmarks import harness, parts
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress
from benchmarks.profiles import (
    agreement,
    bringing,
    checking,
    fitting,
    honest,
    mapping,
    points,
    regret,
    repeat,
    resume,
)

Part = Callable[[Progress, Effort], list[Figure]]

PARTS: dict[str, Part] = {
    "fitting": fitting.measure,
    "checking": checking.measure,
    "regret": regret.measure,
    "mapping": mapping.measure,
    "honest": honest.measure,
    "points": points.measure,
    "repeat": repeat.measure,
    "agreement": agreement.measure,
    "resume": resume.measure,
    "bring": bringing.measure,
}


def measure(progress: Progress, chosen: Mapping[str, Part], effort: Effort) -> list[Figure]:
    """Runs parts, one after the other. They have event loops of their own."""
    return [found for part in chosen.values() for found in part(progress, effort)]


def main() -> int:
    """Runs the command line. Returns the exit code."""
    arguments = parts.parser("profiles", PARTS).parse_args()
    chosen, effort = parts.chosen(PARTS, arguments)
    with harness.alarm(harness.limit_s("profiles")):
        return harness.report("profiles", lambda progress: measure(progress, chosen, effort), arguments.form)


if __name__ == "__main__":
    sys.exit(main())
