"""Time from a decision to traffic through the new models: two variants are swapped in their slices under load."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import median

from benchmarks.controller.callers import callers
from benchmarks.controller.replans import Target
from benchmarks.controller.supervised import supervised
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread

SWAPS = 6
TARGETS = (Target(0.8, 600, demand_rps=2.0), Target(0.8, 300, demand_rps=2.0))
"""Targets of the swaps: the strict SLO allows only the fast variants. Each plan has one slice for each of two tasks."""

_CALM_S = 1.0


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Swaps the variants to and fro."""
    swaps = max(1, effort.count(SWAPS))
    found: list[tuple[float, float]] = []
    async with supervised() as running:
        journal = running.deployment.paths.journal
        await asyncio.to_thread(running.update, TARGETS[0])
        with callers(running.url) as outcomes:
            for number in range(1, swaps + 1):
                await asyncio.sleep(_CALM_S)
                last = _last(journal)
                await asyncio.to_thread(running.update, TARGETS[number % 2])
                found.append(_spans(journal, last))
                progress(f"swap: {found[-1][0]:.2f} s, of which models load for {found[-1][1]:.2f} s")
    beyond_s = [whole_s - load_s for whole_s, load_s in found]
    note = (
        f"median of {swaps}, {spread(beyond_s)}; end of the solve to the switch of the front, without the "
        f"{median(load_s for _, load_s in found):.2f} s in which models load; {len(outcomes.failures)} of "
        f"{outcomes.sent} requests failed"
    )
    return [figure("controller.swap_s", median(beyond_s), "s", note, at_most=1.0)]


def _last(journal: Path) -> int:
    """Returns the number of the last action in the journal."""
    with closing(sqlite3.connect(journal)) as file:
        return int(file.execute("SELECT MAX(id) FROM actions").fetchone()[0])


def _spans(journal: Path, after: int) -> tuple[float, float]:
    """Returns the seconds from the end of the solve to the end of the switch, and those in which models loaded."""
    with closing(sqlite3.connect(journal)) as file:
        rows = file.execute("SELECT kind, begun, ended FROM actions WHERE id > ? AND ended IS NOT NULL", (after,))
        spans = [(kind, *(datetime.fromisoformat(text).timestamp() for text in times)) for kind, *times in rows]
    decided_s = min(ended for kind, _, ended in spans if kind == "Solve")
    switched_s = max(ended for kind, _, ended in spans if kind == "Flip")
    load_s, until_s = 0.0, decided_s
    for begun, ended in sorted((begun, ended) for kind, begun, ended in spans if kind in ("LoadModels", "BringUp")):
        load_s += max(0.0, ended - max(begun, until_s))
        until_s = max(until_s, ended)
    return switched_s - decided_s, load_s
