"""A ready application whose variants are emulated, deployed as a user would."""

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.clients import Client
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def test_a_copy_of_traffic_answers(system: System, tmp_path: Path) -> None:
    app = tmp_path / "crossing"
    made = system.run("init", app, "--from", "traffic")
    assert made.code == 0, made.err
    system.deploy(app, "--gpus", "1xH100-80GB", "--driver", "emulated", "--demand", "5")
    frame = np.zeros((1, 640, 640, 3), np.uint8)
    with Client(system, "grpc") as client:
        answer = client.ask("traffic", {"FRAME": frame}, ("MAKE", "PERSON"))
    assert [array.shape[0::2] for array in answer.values()] == [(1, 1), (1, 1)]
    assert not answer["MAKE"].any()
