"""`jigsaw-triton down`: takes all down."""

from pathlib import Path

from jigsaw_triton.cli import options
from jigsaw_triton.cli.output import Output
from jigsaw_triton.cli.running import Deployment
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.leftovers import end_leftovers
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster


@options.command("down", examples=("down", "down --state ./state"))
@options.state()
def command(out: Output, state: Path | None) -> int | None:
    """Stops the gateway and the workers and destroys their MIG instances; logs and events stay.

    Exits with 4 where nothing is deployed.
    """
    deployment = Deployment.at(state)
    if deployment.status() is not None:
        after = deployment.last_event()
        deployment.client.down()
        answer = deployment.follow(out.note, after, lambda a: a["state"] == "stopped")
        out.result({"state": "stopped", "error": answer["error"]}, "nothing runs any more")
        return None
    ended = _end_leftovers(deployment)
    if not ended:
        raise deployment.absent()
    told = f"the controller was gone; {ended} servers and MIG instances that it left are ended"
    out.result({"state": "stopped", "error": ""}, told)
    return None


def _end_leftovers(deployment: Deployment) -> int:
    """Ends what a controller that was killed left; returns how much it was."""
    if not deployment.paths.journal.exists():
        return 0
    journal = Journal(deployment.paths.journal)
    try:
        return end_leftovers(journal, open_driver(Cluster(()), deployment.paths.state))
    finally:
        journal.close()
