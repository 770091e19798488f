"""Command line of the benchmark of the web console."""

import sys

from benchmarks.console import pages, server, updates
from benchmarks.parts import Part, main

PARTS: dict[str, Part] = {
    "pages": pages.measure,
    "server": server.measure,
    "updates": updates.measure,
}


if __name__ == "__main__":
    sys.exit(main("console", PARTS))
