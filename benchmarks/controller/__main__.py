"""Command line of the controller's benchmark."""

import sys

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
from benchmarks.parts import Part, main

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


if __name__ == "__main__":
    sys.exit(main("controller", PARTS))
