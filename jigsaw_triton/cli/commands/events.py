"""`jigsaw-triton events`: prints the events of the deployment."""

from dataclasses import asdict
from pathlib import Path

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.observed import event_line, raise_failure
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output


@options.command("events", examples=("events", "events -n 100", "events --follow"))
@options.option(
    "-n",
    "--lines",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Number of past events to show.",
)
@options.option("--follow", is_flag=True, help="Follow the events until Ctrl-C or the end of the deployment.")
@options.state()
def command(out: Output, lines: int, follow: bool, state: Path | None) -> int | None:
    """Show the events of the deployment: plans, changes and their stages, measured load, errors.

    Events are kept when the deployment is taken down.
    """
    deployment = Deployment(state)
    events = deployment.events(limit=lines)
    if not events and not deployment.running:
        raise deployment.missing()
    lines_of_text = "\n".join(event_line(e.at, e.kind, e.text) for e in events)
    out.result({"events": [asdict(e) for e in events]}, *([lines_of_text] if lines_of_text else []))
    if follow and not out.json:
        after = events[-1].id if events else 0
        last = deployment.follow(lambda line: out.raw(f"{line}\n"), after, lambda a: a["state"] == "stopped")
        if last["state"] == "gone":
            raise_failure(last)
    return None
