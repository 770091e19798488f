"""Command line of the benchmark of the web console."""

import sys
from collections.abc import Awaitable, Callable

from benchmarks import harness, system
from benchmarks.console import pages, server, updates
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "pages": pages.measure,
    "server": server.measure,
    "updates": updates.measure,
}


async def measure(progress: Progress, parts: dict[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in await part(progress, effort)]


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
    return harness.report(
        "console",
        lambda progress: system.run(measure(progress, parts, effort), harness.limit_s("console")),
        arguments.form,
    )


if __name__ == "__main__":
    sys.exit(main())
