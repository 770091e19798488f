"""Values of options."""

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize("number", ["nan", "inf", "much"])
@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (("status", "--wait", "ready"), "--timeout"),
        (("plan", "app", "--gpus", "1xcpu", "--demand", "1"), "--time-limit"),
        (("bench", "app"), "--duration"),
        (("bench", "app"), "--rate"),
        (("profile", "app"), "--seconds"),
    ],
)
def test_seconds_and_rates_are_finite(run: Run, command: tuple[str, ...], flag: str, number: str) -> None:
    result = run(*command, flag, number)
    assert result.exit_code == 2
    assert f"Invalid value for '{flag}'" in result.stderr
