"""Command line of the benchmark of clusters."""

import sys

from benchmarks.cluster import cells, faults, fronts, gateway, planning, raylets, remote, simulated
from benchmarks.parts import Part, main

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


if __name__ == "__main__":
    sys.exit(main("cluster", PARTS))
