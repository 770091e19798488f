"""Benchmark of the data plane: its cost, its correctness under faults, and its behaviour under overload.

Each part has a deployment of its own. The parts run one after the other.
"""

import sys
from functools import partial

from benchmarks import parts
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
from benchmarks.parts import Part

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


def main() -> int:
    """Runs the command line. Returns the exit code."""
    parser = parts.parser("dataplane", PARTS)
    parser.add_argument(
        "--requests", type=int, default=soak.REQUESTS, help="number of requests of the part soak (default: %(default)s)"
    )
    arguments = parser.parse_args()
    return parts.run("dataplane", {**PARTS, "soak": partial(soak.measure, requests=arguments.requests)}, arguments)


if __name__ == "__main__":
    sys.exit(main())
