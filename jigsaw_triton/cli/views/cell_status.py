"""The status of cells and of their front as tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from jigsaw_triton.cli.io.output import View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.front import front_view


def cells_view(status: Mapping[str, Any]) -> Iterator[View]:
    """Yields the parts of the status of cells, to be printed one below the other."""
    header = ("cell", "state", "gateway", "workers", "graph", "arrivals/s", "planned/s", "capacity/s")
    yield Table.of(header, [row for name, cell in status["cells"].items() for row in _rows(name, cell)])
    for name, cell in status["cells"].items():
        yield from (f"{name}: {reason}" for reason in (cell["reasons"] if cell is not None else ()))
    if status["front"] is not None:
        yield ""
        yield from front_view(status["front"])


def _rows(name: str, cell: Mapping[str, Any] | None) -> Iterator[tuple[object, ...]]:
    """Yields a row for each graph; what belongs to the cell is in the first one."""
    if cell is None:
        yield (name, "not deployed", *["-"] * 6)
        return
    serving = "" if cell["serving"] else ", not serving"
    first = (name, f"{cell['state']}{serving}", cell["gateway"].get("http", "-"), len(cell["workers"]))
    if not cell["graphs"]:
        yield (*first, *["-"] * 4)
    for number, (graph, found) in enumerate(cell["graphs"].items()):
        arrivals = found["arrivals_rps"]
        yield (
            *(first if number == 0 else [""] * len(first)),
            graph,
            "-" if arrivals is None else figures(arrivals),
            figures(found["demand_rps"]),
            figures(found["capacity_rps"]),
        )
