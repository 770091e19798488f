"""Canaries: an update that answers a share of the requests before it takes over or is rolled back."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Crowd
from tests.e2e.system import System
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

GPUS = ("--gpus", "2xcpu")
AGAIN = SQUARE + "\n# the same model with another digest\n"
FAILS = SQUARE.replace(
    "        time.sleep",
    '        if (inputs["NUMBER"] % 2 == 1).any():\n            raise ValueError("odd")\n        time.sleep',
)
"""Source of a square model that fails for odd numbers, and answers the zeros with which it is probed."""


def assert_share(canary: dict[str, Any], share: float) -> None:
    """Checks the share of the requests that the new generation got, to six standard deviations."""
    by = canary["graphs"]["words"]
    new, total = by["new"]["requests"], by["new"]["requests"] + by["running"]["requests"]
    assert abs(new - share * total) < 6 * math.sqrt(total * share * (1 - share)) + 2, by


def test_a_good_canary_takes_over_and_loses_no_request(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    before = shared.deploy(app, *GPUS, "--demand", 40)
    write_application(app, square=AGAIN)
    with Crowd(shared) as crowd:
        after = shared.deploy(app, *GPUS, "--canary", "50%", "--canary-for", "25s")
        crowd.wait_answers(20)
    crowd.assert_none_failed()
    assert after["generation"] == before["generation"] + 1
    assert after["canary"]["verdict"].startswith("promoted: words: errors 0.0% against 0.0%")
    assert_share(after["canary"], 0.5)
    assert "canary: words: in the answer to a request of zeros, SQUARES is equal; TOTAL is equal" in shared.events()
    latest = shared.run("history", "-o", "json").json["generations"][-1]
    assert latest["outcome"] == "serves" and "; canary promoted: words: errors 0.0%" in latest["reason"]


def test_a_canary_that_fails_is_rolled_back_and_only_its_share_of_the_requests_sees_it(
    shared: System, tmp_path: Path
) -> None:
    app = write_application(tmp_path / "app")
    before = shared.deploy(app, *GPUS, "--demand", 40)
    write_application(app, square=FAILS)
    with Crowd(shared) as crowd:
        result = shared.run("deploy", app, *GPUS, *shared.ports, "--detach", "--canary", "20%", "--canary-for", "80s")
        failed = len(crowd.failures)
        crowd.wait_answers(30)
        assert len(crowd.failures) == failed
    assert result.code == 4
    assert "canary: rolled back: words: errors" in result.err
    after = shared.status()
    assert after["state"] == "ready" and after["generation"] == before["generation"]
    by = after["canary"]["graphs"]["words"]
    assert by["running"]["failed"] == 0 and 0 < by["new"]["failed"] <= failed
    assert_share(after["canary"], 0.2)
    assert shared.run("history", "-o", "json").json["generations"][-1]["outcome"] == "failed"


def test_a_rollback_ends_a_canary(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    before = shared.deploy(app, *GPUS, "--demand", 40)
    write_application(app, square=AGAIN)
    seen = shared.last_event()
    with Crowd(shared) as crowd:
        deploy = shared.start("deploy", app, *GPUS, *shared.ports, "--detach", "--canary", "0.5", "--canary-for", "1h")
        shared.wait_event("answer 50% of the requests with the new generation", after=seen)
        crowd.wait_answers(40)
        shown = shared.run("status")
        ended = shared.run("rollback")
        _, error = deploy.communicate(timeout=WAIT_LIMIT_S)
        crowd.wait_answers(20)
    crowd.assert_none_failed()
    assert f"canary of 50%, generation {shared.status()['canary']['generation']}: " in shown.out
    assert ended.code == 0, ended.err
    assert deploy.returncode == 4 and "canary: rolled back: requested by the user" in error
    assert shared.status()["generation"] == before["generation"]
