"""What the data plane costs against native ensembles, how fair, faithful and honest under overload it is.

Each part has a deployment of its own; they run one after the other.
"""

import sys
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks import harness, system
from benchmarks.dataplane import depth, docread, edge, fused, native, overload, saturation, shared, soak
from benchmarks.harness import Figure, Tell

Part = Callable[[Tell], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "native": native.measure,
    "fused": fused.measure,
    "depth": depth.measure,
    "saturation": saturation.measure,
    "overload": overload.measure,
    "shared": shared.measure,
    "docread": docread.measure,
    "edge": edge.measure,
    "soak": soak.measure,
}


async def measure(tell: Tell, parts: dict[str, Part]) -> list[Figure]:
    """One part after the other."""
    return [found for part in parts.values() for found in await part(tell)]


def main() -> int:
    """The command line."""
    parser = harness.parser("dataplane")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; default all"
    )
    parser.add_argument("--requests", type=int, default=soak.REQUESTS, help="of the part soak (default: %(default)s)")
    arguments = parser.parse_args()
    parts = {name: PARTS[name] for name in arguments.parts or PARTS}
    if "soak" in parts:
        parts["soak"] = partial(soak.measure, requests=arguments.requests)
    limit_s = harness.limit_s("dataplane")
    return harness.report("dataplane", lambda tell: system.run(measure(tell, parts), limit_s), arguments.form)


if __name__ == "__main__":
    sys.exit(main())
