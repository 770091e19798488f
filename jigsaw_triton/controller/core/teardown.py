"""The stages that stop a deployment. Pure."""

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.stage import Stage


def stages_down(actual: Actual) -> tuple[Stage, ...]:
    """Returns the stages that stop everything."""
    gateway: tuple[a.Action, ...] = (a.StopGateway(),) if actual.gateway else ()
    stages = (
        Stage("stop the gateway", gateway),
        Stage("stop the workers and destroy their MIG instances", tuple(a.Retire(w) for w in actual.workers.values())),
    )
    return tuple(stage for stage in stages if stage.actions)
