"""Benchmark of the data plane: its cost, its correctness under faults, and its behaviour under overload.

Each part has a deployment of its own. The parts run one after the other.
"""

import sys
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks import harness, system
from benchmarks.dataplane import (
    cost,
    depth,
    docread,
    edge,
    fused,
    hangs,
    http_lost,
    native,
    onnx,
    otlp,
    overload,
    peers,
    promise,
    saturation,
    scale,
    shared,
    soak,
)
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "native": native.measure,
    "fused": fused.measure,
    "onnx": onnx.measure,
    "depth": depth.measure,
    "cost": cost.measure,
    "saturation": saturation.measure,
    "overload": overload.measure,
    "shared": shared.measure,
    "http_lost": http_lost.measure,
    "hangs": hangs.measure,
    "scale": scale.measure,
    "promise": promise.measure,
    "peers": peers.measure,
    "docread": docread.measure,
    "edge": edge.measure,
    "otlp": otlp.measure,
    "soak": soak.measure,
}


async def measure(progress: Progress, parts: dict[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in await part(progress, effort)]


def main() -> int:
    """Runs the command line. Returns the exit code."""
    parser = harness.parser("dataplane")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument(
        "--requests", type=int, default=soak.REQUESTS, help="number of requests of the part soak (default: %(default)s)"
    )
    parser.add_argument("--smoke", action="store_true", help="run quickly, only to show that the benchmark works")
    arguments = parser.parse_args()
    effort = SMOKE if arguments.smoke else FULL
    parts = {name: PARTS[name] for name in arguments.parts or PARTS}
    if "soak" in parts:
        parts["soak"] = partial(soak.measure, requests=arguments.requests)
    limit_s = harness.limit_s("dataplane")
    return harness.report(
        "dataplane", lambda progress: system.run(measure(progress, parts, effort), limit_s), arguments.form
    )


if __name__ == "__main__":
    sys.exit(main())
