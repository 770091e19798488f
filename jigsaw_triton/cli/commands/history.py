"""`jigsaw-triton history`: lists the generations of the deployment."""

from dataclasses import asdict
from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table

_HEADER = ("generation", "at", "by", "slices", "outcome", "reason")


@options.command("history", examples=("history", "history -o json"))
@options.state()
def command(out: Output, state: Path | None) -> None:
    """List the generations of the deployment: who asked for them, why, when, and how they ended up.

    The history is kept when the deployment is taken down. `rollback` returns to a generation that served before.
    """
    deployment = Deployment(state)
    found = deployment.history()
    if not found and not deployment.running:
        raise deployment.missing()
    rows = [
        (r.number, _seconds(r.at), r.by, f"{r.slices} of {r.slices_total}", r.outcome or "in progress", r.reason)
        for r in found
    ]
    out.result({"generations": [asdict(revision) for revision in found]}, Table.of(_HEADER, rows))


def _seconds(at: str) -> str:
    """Returns a time in ISO 8601 without fractions of seconds."""
    return at.partition(".")[0].replace("T", " ")
