"""The controller that a node obeys: its deployment, its epoch, and the fence against those that it has replaced."""

import json
import time

from jigsaw_triton.controller.fleet.wire import Json
from jigsaw_triton.controller.persistence.epoch import number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.records import CONTROLLER_EPOCH_FACT
from jigsaw_triton.errors import StateError

_DEPLOYMENT_FACT = "deployment"
"""Journal key of the deployment that the workers belong to."""

_FENCE_FACT = "fence"
"""Journal key of the fence as JSON: a deployment, the epoch from which on its workers may be called, the machine of the
controller that has set it, and the time."""

END_HINT = "stop the agent, and end the workers by `jigsaw-triton down --state DIR` with the agent's folder"


class Commander:
    """The controller that has commanded a node last, as the node's journal records it.

    Args:
        journal: Journal of the node.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # A controller may have commanded the previous agent until this moment.
        self._commanded_at = time.monotonic()

    def admit(self, deployment: str, epoch: str, *, workers: int, standby: bool) -> None:
        """Checks that a command comes from the controller that owns the node now.

        Args:
            deployment: Identity of the controller's deployment.
            epoch: Epoch of the controller.
            workers: Number of workers that the node has or starts.
            standby: True if the node has a standby gateway.

        Raises:
            StateError: Another deployment has workers here, or a later controller has taken over.
        """
        owner, known = self._journal.fact(_DEPLOYMENT_FACT), self._journal.fact(CONTROLLER_EPOCH_FACT)
        if owner != deployment:
            if owner and (workers or standby):
                beside = " and a standby gateway" if standby else ""
                raise StateError(
                    f"this node serves another deployment with {workers} workers{beside}",
                    where="the agent",
                    hint="take that one down first, or run a second agent with another --state and --listen; if its "
                    f"state folder is lost, {END_HINT}",
                )
            self._journal.keep_fact(_DEPLOYMENT_FACT, deployment)
            self._journal.keep_fact(CONTROLLER_EPOCH_FACT, epoch)
        elif epoch != known:
            # Two controllers with copies of one state folder may have begun different epochs with the same number.
            if number_of(epoch) <= number_of(known):
                raise StateError(
                    f"the controller's epoch, {epoch}, is over: another one has begun epoch {known}",
                    where="the agent",
                    hint="end the other controller, and start this one again",
                )
            self._journal.keep_fact(CONTROLLER_EPOCH_FACT, epoch)
        self._commanded_at = time.monotonic()

    def to_json(self) -> Json:
        """Returns the deployment that the node obeys, its last epoch and fence, and the seconds since a command."""
        fence = self._fence
        return {
            "deployment": self._journal.fact(_DEPLOYMENT_FACT),
            "epoch": self._journal.fact(CONTROLLER_EPOCH_FACT),
            "fence": self.fence,
            "fenced_by": fence.get("machine", ""),
            "fenced_at": fence.get("at", ""),
            "commanded_s": time.monotonic() - self._commanded_at,
        }

    @property
    def fence(self) -> str:
        """Epoch of the controller whose gateways, and those of later ones, may call the workers; empty for all."""
        return str(self._fence.get("epoch", ""))

    @property
    def _fence(self) -> Json:
        """The fence of the present deployment; empty if it has none."""
        found: Json = json.loads(self._journal.fact(_FENCE_FACT) or "{}")
        return found if found.get("deployment") == self._journal.fact(_DEPLOYMENT_FACT) else {}

    def keep_fence(self, epoch: str, machine: str) -> None:
        """Records a fence of the present deployment.

        Args:
            epoch: Epoch of the controller that has set it.
            machine: Name of the machine of that controller.
        """
        deployment, at = self._journal.fact(_DEPLOYMENT_FACT), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        fence = {"deployment": deployment, "epoch": epoch, "machine": machine, "at": at}
        self._journal.keep_fact(_FENCE_FACT, json.dumps(fence))
