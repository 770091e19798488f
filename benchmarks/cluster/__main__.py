"""Command line of the benchmark of clusters."""

import sys
from collections.abc import Awaitable, Callable

from benchmarks import harness, system
from benchmarks.cluster import cells, faults, fronts, gateway, planning, raylets, remote, simulated
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "remote": remote.measure,
    "faults": faults.measure,
    "fronts": fronts.measure,
    "gateway": gateway.measure,
    "raylets": raylets.measure,
    "cells": cells.measure,
    "planning": planning.measure,
    "simulated": simulated.measure,
}


async def measure(progress: Progress, parts: dict[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in await part(progress, effort)]


def main() -> int:
    """Runs the command line. Returns the exit code."""
    parser = harness.parser("cluster")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--smoke", action="store_true", help="run quickly, only to show that the benchmark works")
    arguments = parser.parse_args()
    parts = {name: PARTS[name] for name in arguments.parts or PARTS}
    effort = SMOKE if arguments.smoke else FULL
    return harness.report(
        "cluster",
        lambda progress: system.run(measure(progress, parts, effort), harness.limit_s("cluster")),
        arguments.form,
    )


if __name__ == "__main__":
    sys.exit(main())
