from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.nvml.machine import Machine

MakeMachine = Callable[..., Machine]


@pytest.fixture
def machine_of(tmp_path: Path) -> Iterator[MakeMachine]:
    """Returns a function that makes a simulated machine with the given boards and lets this process use it."""
    machines: list[Machine] = []

    def make(*models: str, mig: bool = True) -> Machine:
        machines.append(Machine(tmp_path / "gpus", models, mig=mig))
        machines[-1].enter()
        return machines[-1]

    yield make
    for machine in machines:
        machine.leave()
