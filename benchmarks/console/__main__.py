"""Command line of the benchmark of the web console."""

import sys
from collections.abc import Callable

from benchmarks import harness
from benchmarks.console import pages, server
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], list[Figure]]

PARTS: dict[str, Part] = {
    "pages": pages.measure,
    "what_if": lambda progress, effort: [server.what_if(effort, progress=progress)],
    "cost": lambda progress, effort: server.cost(effort, progress),
}


def measure(progress: Progress, parts: dict[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in part(progress, effort)]


def main() -> int:
    """Runs the command line. Returns the exit code."""
    parser = harness.parser("console")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--smoke", action="store_true", help="run quickly, only to show that the benchmark works")
    arguments = parser.parse_args()
    parts = {name: PARTS[name] for name in arguments.parts or PARTS}
    effort = SMOKE if arguments.smoke else FULL
    with harness.alarm(harness.limit_s("console")):
        return harness.report("console", lambda progress: measure(progress, parts, effort), arguments.form)


if __name__ == "__main__":
    sys.exit(main())
