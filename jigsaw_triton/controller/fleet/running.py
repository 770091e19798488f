"""Workers that run on a node, as its agent reports them and as the controller's journal keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.wire import Json


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that runs on a node.

    Attributes:
        process: Process of the worker.
        incarnation: Text that differs for each process of the worker.
    """

    process: Process
    incarnation: str


def running_json(running: Mapping[str, Running]) -> Json:
    """Returns running workers by name as JSON, in the form of an agent's answer."""
    return {
        name: {"pid": one.process.pid, "uuid": one.process.uuid, "incarnation": one.incarnation}
        for name, one in running.items()
    }


def read_running(data: Json) -> Mapping[str, Running]:
    """Returns the running workers of `running_json`."""
    return {n: Running(Process(one["pid"], one["uuid"]), one["incarnation"]) for n, one in data.items()}
