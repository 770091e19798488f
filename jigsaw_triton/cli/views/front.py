"""The status of a front as lines and a table."""

from collections.abc import Iterator, Mapping
from typing import Any

from jigsaw_triton.cli.io.output import View
from jigsaw_triton.cli.io.table import Table


def front_view(status: Mapping[str, Any]) -> Iterator[View]:
    """Yields the parts of a front's status, to be printed one below the other."""
    serving = "" if status["serving"] else ", not serving"
    yield f"front: {status['state']}{serving}, http {status['http']}, grpc {status['grpc']}, {status['metrics']}"
    if status["state"] == "unsupervised":
        yield "HAProxy runs without the front's process, so weights and changes of the file are not followed"
    rows = [
        (
            graph,
            cell["cell"],
            "up" if cell["up"] else f"down ({cell['reason']})",
            "-" if cell["planned_share"] is None else f"{cell['planned_share']:.1%}",
            f"{cell['share']:.1%}",
            sum(cell["requests"].values()),
            cell["in_flight"],
        )
        for graph, cells in status["graphs"].items()
        for cell in cells
    ]
    yield Table.of(("graph", "cell", "state", "planned share", "share", "requests", "in flight"), rows)
