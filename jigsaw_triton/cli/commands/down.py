"""`jigsaw-triton down`: takes all down."""

import shutil
from pathlib import Path

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.running import Deployment
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import AlreadyRunsError, take_lock
from jigsaw_triton.controller.orphans import end_orphans
from jigsaw_triton.errors import StateError


@options.command("down", examples=("down", "down --state ./state"))
@options.state()
def command(out: Output, state: Path | None) -> int | None:
    """Stop the gateway and the workers, and destroy their MIG instances.

    Logs and events are kept. The command exits with 4 if nothing is deployed.
    """
    deployment = Deployment.at(state)
    asked = deployment.take_down(out.note)
    ended = _end_orphans(deployment)
    if not asked and not ended:
        raise deployment.absent()
    if ended:
        out.note(f"the controller was gone; {ended} servers and MIG instances that it left are ended")
    out.result({"state": "stopped"}, "nothing runs any more")
    return None


def _end_orphans(deployment: Deployment) -> int:
    """Ends what a controller that was killed left; returns how much it was.

    Raises:
        InstanceInUseError: A process that is not ours holds a MIG instance.
        StateError: A controller is just starting or ending.
    """
    paths = deployment.paths
    if not paths.journal.exists():
        return 0
    try:
        take_lock(paths.lock)
    except AlreadyRunsError as error:
        where, hint = str(paths.state), "try again in a moment"
        raise StateError("a controller is just starting or ending", where=where, hint=hint) from error
    journal = Journal(paths.journal)
    try:
        ended = end_orphans(journal, paths.state)
        journal.forget_checkpoint()
    finally:
        journal.close()
    for folder in (paths.run, paths.repositories):
        shutil.rmtree(folder, ignore_errors=True)
    paths.secret.unlink(missing_ok=True)
    return ended
