"""All calls to Ray, in a process of its own: `python -m jigsaw_triton.servers.engines.ray_process ADDRESS DESCRIPTOR`.

Ray ends a process that has lost its cluster, starts threads, and takes 100 MiB. So the controller starts this process
when it needs Ray, and nothing of Ray is imported anywhere else.
"""

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jigsaw_triton.child_process import connected
from jigsaw_triton.errors import InputError, JigsawError, MissingDependencyError, ServerError
from jigsaw_triton.servers.engines.actor import AgentKeeper
from jigsaw_triton.servers.engines.placement import AgentSpec, Placed, endpoint, hosts, prefix, resource

_ANSWER_S, _START_S = 5.0, 120.0
"""Seconds in which an actor answers a call, and starts together with its agent."""

_CONNECT_S = 10.0

_AWAY_HINT = (
    "correct `ray: {address: ...}` in cluster.yaml, or set RAY_AUTH_TOKEN as there; see if `ray status` answers"
)
_INSTALL = "install jigsaw-triton[agents,ray] and the same Ray on all machines"


class _Ray:
    """The Ray cluster, seen from one deployment.

    Args:
        address: Address of the cluster, as `ray.init` takes it.
        namespace: Ray namespace of the deployment.

    Raises:
        JigsawError: The package is missing, or the cluster cannot be used.
    """

    def __init__(self, address: str, namespace: str) -> None:
        try:
            import ray
        except ImportError as error:
            hint = "run pip install 'jigsaw-triton[ray]' here and on all nodes"
            raise MissingDependencyError("the engine `ray` needs the package ray", hint=hint) from error
        self._ray = ray
        self._namespace = namespace
        where = f"Ray at {address}"
        _check_reachable(address, where)
        try:
            ray.init(address, namespace=namespace, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except Exception as error:  # Ray raises many classes, some of them internal.
            raise _explained(error, where) from error

    def place(self, specs: Sequence[AgentSpec]) -> Placed:
        """Has an actor on each node keep its agent running, and waits until the agents listen."""
        found, errors = hosts(self._ray.nodes(), [spec.node for spec in specs])
        named = self._ray.util.list_named_actors(all_namespaces=True)
        calls = {}
        for spec in specs:
            if spec.node not in found:
                continue
            for actor in named:
                if actor["name"].startswith(prefix(spec.node)) and actor["namespace"] == self._namespace:
                    self._kill(actor["name"], unless=spec.actor)
                elif actor["name"].startswith(prefix(spec.node)):
                    message = f"another deployment has its agent there, in Ray's namespace {actor['namespace']}"
                    hint = "take that one down first, or kill its actor: `ray list actors` shows it"
                    errors[spec.node] = InputError(message, where=f"node {spec.node}", hint=hint)
            if spec.node not in errors:
                calls[spec.node] = self._actor(spec).report.remote(_START_S)
        reports = self._answers(calls, _START_S + _ANSWER_S)
        addresses = {}
        for spec in specs:
            if spec.node in errors:
                continue
            where = f"node {spec.node}"
            match reports[spec.node]:
                case "":
                    addresses[spec.node] = endpoint(spec, found[spec.node])
                case str() as text:
                    errors[spec.node] = InputError(text, where=where, hint="see logs/agent.log in its state folder")
                case None:
                    message = f"its actor has not started within {_START_S:g} s"
                    errors[spec.node] = InputError(message, where=where, hint=f"see `ray list actors`; {_INSTALL}")
                case error:
                    errors[spec.node] = InputError(f"its actor has died: {error}", where=where, hint=_INSTALL)
        return Placed(addresses, errors)

    def remove(self) -> None:
        """Ends all actors of the deployment. The agents go on, and nobody starts them again."""
        for actor in self._ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == self._namespace:
                self._kill(actor["name"])

    def _actor(self, spec: AgentSpec) -> Any:
        """Returns the actor of an agent, created if there is none."""
        host = "0.0.0.0" if spec.everywhere else ""
        options = {
            "name": spec.actor,
            "namespace": self._namespace,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "num_cpus": 0,
            "num_gpus": 0,
            # The actor is bound to a resource of the node, because the id of a raylet changes when it is restarted.
            "resources": {resource(spec.node): 1},
        }
        keeper = self._ray.remote(AgentKeeper).options(**options)
        return keeper.remote(spec.node, host, spec.port, spec.state, dict(spec.files))

    def _answers(self, calls: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Returns the answer to each call: an exception if it failed, None if it did not come in time."""
        done, _ = self._ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
        answers: dict[str, Any] = {}
        for name, call in calls.items():
            answers[name] = None
            if call in done:
                try:
                    answers[name] = self._ray.get(call)
                except Exception as error:  # The actor has died, or its class cannot be unpickled on its node.
                    answers[name] = error
        return answers

    def _kill(self, name: str, *, unless: str = "") -> None:
        if name != unless:
            # The actor may have ended meanwhile.
            with suppress(ValueError):
                self._ray.kill(self._ray.get_actor(name, namespace=self._namespace), no_restart=True)


def _explained(error: Exception, where: str) -> JigsawError:
    """Returns an error of `ray.init` in the terms of the user."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "client version" in text:
        return InputError(f"the releases of Ray or Python differ: {text}", where=where, hint=_INSTALL)
    if "token" in text.lower() or "authenticat" in text.lower():
        hint = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the machines of the cluster (`ray get-auth-token`)"
        return InputError(f"the cluster does not accept this token: {text}", where=where, hint=hint)
    return ServerError(f"the cluster does not answer: {text}", where=where, hint=_AWAY_HINT)


def _check_reachable(address: str, where: str) -> None:
    """Checks that somebody listens at an address with a port, for which Ray itself would wait a minute.

    Raises:
        ServerError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise ServerError(f"the cluster does not answer: {error}", where=where, hint=_AWAY_HINT) from error


def main(address: str, namespace: str, descriptor: int) -> None:
    """Answers one request after the other: ("place", specs) or ("remove",)."""
    connection = connected(descriptor)
    ray: _Ray | None = None
    while True:
        name, *arguments = connection.recv()
        try:
            ray = ray or _Ray(address, namespace)
            calls: Mapping[str, Callable[..., Any]] = {"place": ray.place, "remove": ray.remove}
            connection.send(calls[name](*arguments))
        except JigsawError as error:
            connection.send(error)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
