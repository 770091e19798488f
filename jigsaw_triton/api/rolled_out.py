"""Deployments whose rollouts are planned and carried out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from jigsaw_triton.api import controller
from jigsaw_triton.api.observed import running_plan
from jigsaw_triton.api.operated import OperatedDeployment, note_interruption
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.console.client import ControllerGoneError, ControllerHungError
from jigsaw_triton.console.options import DEFAULTS, ProcessOptions
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.sizes import readable

if TYPE_CHECKING:
    # These take half a second to import, which `status` and `events` would wait for.
    from jigsaw_triton.api.files import Mistakes, PathLike
    from jigsaw_triton.api.request import Request
    from jigsaw_triton.api.rollout import Rollout

_COPIED_BYTES_S = 10e6
"""Bytes of model files that a controller reads and copies in a second, at least: on a slow network disk."""

_NOTED_BYTES = 2**29
"""Least size of model files that a deployment mentions, since to read and copy them takes a second or more."""


class RolledOutDeployment(OperatedDeployment):
    """A deployment whose requests are read, planned for, and given to the controller.

    Args:
        state: Folder of the deployment; see `ObservedDeployment`.
        options: Options of the controllers that this object starts.
    """

    def __init__(self, state: "PathLike | None" = None, options: ProcessOptions = DEFAULTS) -> None:
        super().__init__(state, options)
        self._request: Request | None = None

    def prepare(
        self,
        request: "Request",
        *,
        mistakes: "Mistakes | None" = None,
        reporter: Reporter = LOG,
        wording: Wording = PYTHON,
    ) -> "Rollout":
        """Reads a request and plans for it, before anything is changed.

        Args:
            request: The request.
            mistakes: Mistakes that were found before.
            reporter: Recipient of notes and warnings.
            wording: Form in which mistakes name an option.

        Raises:
            SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
            InfeasibleError: No plan meets the requirements.
            StateError: Graphs join or leave, and nothing is deployed.
            InputError: The running controller has other options than this object.
            MigError: The MIG driver does not answer.
        """
        before = self.wait_status()
        if before is None and request.changes_membership:
            raise self.missing()
        if before is not None and before["state"] == "idle":
            # A controller that found no servers to adopt is like a new one.
            before = None
        if before is not None:
            self._check_options(before)
        from jigsaw_triton.api.rollout import planned_rollout

        try:
            return planned_rollout(
                self.paths,
                request,
                before,
                running_plan(before),
                mistakes=mistakes,
                reporter=reporter,
                wording=wording,
            )
        except BaseException:
            if before is None:
                self.end_started(reporter)
            raise

    def ensure_programs(self, rollout: "Rollout", report: Callable[[str], None], reporter: Reporter = LOG) -> None:
        """Finds or downloads everything that the servers run, so that the user sees a download before the start.

        Args:
            rollout: Result of `prepare`.
            report: Function that receives progress.
            reporter: Recipient of the events of a controller that is ended because something is missing.

        Raises:
            MissingDependencyError: This machine lacks something; the hint says how to get it.
            ArtifactError: A download failed.
        """
        from jigsaw_triton.api import programs

        try:
            programs.ensure_programs(rollout.wanted, report)
        except BaseException:
            if rollout.before is None:
                self.end_started(reporter)
            raise

    def roll_out(
        self, rollout: "Rollout", *, wait: bool = True, keep_serving: bool = True, reporter: Reporter = LOG
    ) -> None:
        """Starts the controller if none runs, and has it carry out a rollout.

        Args:
            rollout: Result of `prepare`.
            wait: True to wait until the rollout has ended.
            keep_serving: True if a first deployment stays that serves when the wait is interrupted. Otherwise it is
                taken down. An update continues in any case.
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Another change is in progress.
            JigsawError: The rollout failed. A first deployment is taken down; after a failed update, the previous
                state continues to serve.
        """
        if self.wait_status() is None:
            controller.check_ports_free(rollout.wanted.cluster)
            self.start(reporter.note)
        try:
            after = self.last_event()
            size = rollout.size_bytes()
            if size >= _NOTED_BYTES:
                reporter.note(f"the controller copies the model files, {readable(size)}, if they have changed")
            self._ask(rollout, size)
            served, self._request = self._request, None if rollout.request.changes_membership else rollout.request
            if wait:
                try:
                    self.wait_settled(after, reporter)
                except JigsawError:
                    self._request = served
                    raise
        except BaseException as error:
            if rollout.before is None and not (keep_serving and self._serves()):
                self.end_started(reporter)
            else:
                note_interruption(error, reporter)
            raise

    def _ask(self, rollout: "Rollout", size_bytes: int) -> None:
        """Asks the controller for a rollout. If it accepts a first deployment, the controller belongs to this object.

        Args:
            rollout: The rollout.
            size_bytes: Size of the model files, which the controller copies before it answers.

        Raises:
            StateError: Another change is in progress, or the controller does not answer.
            JigsawError: The controller cannot read or copy the files.
        """
        try:
            self.client.deploy(rollout.request.to_json(), size_bytes / _COPIED_BYTES_S)
        except StateError as error:
            # Another process deploys with this controller, or takes it down, unless the controller itself failed.
            self._owns_controller &= isinstance(error, (ControllerGoneError, ControllerHungError))
            raise
        self._owns_controller |= rollout.before is None
