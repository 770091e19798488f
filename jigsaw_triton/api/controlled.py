"""Deployments whose controller is started, adopted and ended."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jigsaw_triton.api import controller
from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.console.client import ControllerGoneError, ControllerHungError
from jigsaw_triton.console.options import DEFAULTS, OPTION_FLAGS, ProcessOptions
from jigsaw_triton.controller.persistence.lock import is_locked
from jigsaw_triton.errors import InputError, StateError

if TYPE_CHECKING:
    from jigsaw_triton.api.files import PathLike


class ControlledDeployment(ObservedDeployment):
    """A deployment whose controller can be started and ended.

    Args:
        state: Folder of the deployment; see `ObservedDeployment`.
        options: Options of the controllers that this object starts.
    """

    def __init__(self, state: "PathLike | None" = None, options: ProcessOptions = DEFAULTS) -> None:
        super().__init__(state)
        self._options = options
        self._owns_controller = False

    def down(self, *, missing_ok: bool = False, reporter: Reporter = LOG) -> None:
        """Stops the gateway and the workers, and destroys their MIG instances. Logs and events are kept.

        A controller that does not answer is killed; the rest is then done without it.

        Args:
            missing_ok: True if it is no error that nothing is deployed.
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Nothing is deployed, or a controller is starting or ending.
            InstanceInUseError: A process outside the deployment holds a MIG instance.
        """
        stopped = self._end(reporter.note)
        replaced = controller.replacement(self.paths)
        ended = controller.end_orphans(self.paths)
        if replaced is not None:
            reporter.note(f"{replaced.message}; the deployment goes on there")
        if ended:
            what = "one server or MIG instance" if ended == 1 else f"{ended} servers and MIG instances"
            reporter.note(f"ended {what} that ran without a controller or an agent")
        if not (stopped or ended or replaced or missing_ok):
            raise self.missing()

    def _end(self, report: Callable[[str], None]) -> bool:
        """Ends the servers of all machines; returns False if nothing is left to end them but the caller."""
        if self._stop(report):
            return True
        if not controller.agents_serve(self.paths):
            return False
        report("the deployment has workers on other machines; a new controller ends them")
        try:
            self.start(report)
        except StateError:
            if controller.replacement(self.paths) is None:
                raise
            # The workers belong to the controller that has replaced the one here.
            return False
        return self._stop(report)

    def _stop(self, report: Callable[[str], None]) -> bool:
        """Has the controller end the servers, or kills it and does so itself.

        Returns:
            False if there is no controller, or none any more and the servers are on other machines, too.
        """
        try:
            if self.wait_status() is not None:
                self._stop_orderly(report)
                return True
            if not is_locked(self.paths.supervisor_lock):
                return False
        except ControllerHungError:
            pass
        if controller.agents_serve(self.paths):
            report("the controller does not answer: it is killed")
            controller.kill(self.paths)
            return False
        report("the controller does not answer: it is killed, and its servers are ended without it")
        controller.kill(self.paths)
        controller.end_orphans(self.paths)
        return True

    def _stop_orderly(self, report: Callable[[str], None]) -> None:
        """Asks the controller to stop, and waits for its end."""
        after = self.last_event()

        def stopped(state: Mapping[str, Any]) -> bool:
            if state["state"] not in ("stopping", "stopped"):
                # The controller died before it took note of the request, and was restarted.
                self._ask_to_stop()
            return bool(state["state"] == "stopped")

        self._ask_to_stop()
        self.follow(report, after, stopped, retry=False)

    def _ask_to_stop(self) -> None:
        with suppress(ControllerGoneError):
            self.client.down()

    def adopt(self, *, reporter: Reporter = LOG) -> bool:
        """Starts a controller if servers are running without one. It continues to serve with them.

        Args:
            reporter: Recipient of a note.

        Returns:
            True if a controller was started.

        Raises:
            StateError: Another process has just started a controller, or a release with another format of its state
                started the servers.
            JigsawError: The controller did not start.
        """
        if self.wait_status() is not None:
            return False
        if not controller.unattended_servers(self.paths) and not controller.agents_serve(self.paths):
            return False
        controller.check_adoptable(self.paths)
        reporter.note("servers are running here without a controller; a new controller adopts them")
        self.start(reporter.note)
        return True

    def start(self, report: Callable[[str], None] = lambda _: None) -> None:
        """Starts a controller, and waits until it answers.

        Args:
            report: Function that receives a note if it takes long.

        Raises:
            InputError: The port for its metrics is in use.
            StateError: Another process has just started a controller.
            JigsawError: The controller did not start.
        """
        controller.start(self.paths, self._supervisor_pid, self._options, report)
        self._owns_controller = True

    def _check_options(self, status: Mapping[str, Any]) -> None:
        """Checks that a controller that runs has the options of this object.

        Args:
            status: Status of the controller.

        Raises:
            InputError: The controller has other options.
        """
        process, wanted = status["controller"], self._options.to_json()
        for name, given in (("log_format", self._options.log_format), ("metrics", self._options.metrics)):
            if given is not None and process.get(name) != wanted[name]:
                raise InputError(
                    f"the running controller has {process.get(name) or 'none'}, not {wanted[name]}",
                    where=OPTION_FLAGS[name],
                    hint=f"end it with `kill {process['supervisor']}`, and deploy again; the servers go on meanwhile",
                )

    def _supervisor_pid(self) -> int | None:
        status = self.find_status()
        return int(status["controller"]["supervisor"]) if status is not None else None

    def end_started(self, reporter: Reporter) -> None:
        """Ends the controller if it belongs to this object, which started it or made the first deployment with it."""
        if self._owns_controller:
            self._end(reporter.note)

    def _serves(self) -> bool:
        status = self.find_status()
        return status is not None and status["generation"] > 0 and status["state"] != "stopping"
