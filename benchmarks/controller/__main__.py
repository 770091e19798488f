"""Command line of the controller's benchmark."""

import sys
from collections.abc import Awaitable, Callable

from benchmarks import harness, system
from benchmarks.controller import (
    burst,
    changes,
    cycle,
    kills,
    rehearsed,
    replans,
    simulated,
    soak,
    swap,
    takeover,
    twitter,
)
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "burst": burst.measure,
    "changes": changes.measure,
    "replans": replans.measure,
    "cycle": cycle.measure,
    "kills": kills.measure,
    "takeover": takeover.measure,
    "swap": swap.measure,
    "soak": soak.measure,
    "simulated": simulated.measure,
    "forecasts": simulated.measure_forecasts,
    "rehearsed": rehearsed.measure,
    "twitter": twitter.measure,
}


async def measure(progress: Progress, parts: dict[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in await part(progress, effort)]


def main() -> int:
    """Runs the command line. Returns the exit code."""
    parser = harness.parser("controller")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--smoke", action="store_true", help="run quickly, only to show that the benchmark works")
    arguments = parser.parse_args()
    parts = {name: PARTS[name] for name in arguments.parts or PARTS}
    limit_s = harness.limit_s("controller")
    effort = SMOKE if arguments.smoke else FULL
    return harness.report(
        "controller", lambda progress: system.run(measure(progress, parts, effort), limit_s), arguments.form
    )


if __name__ == "__main__":
    sys.exit(main())
