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


@pytest.mark.parametrize("share", ["0", "100%", "1", "-5%", "nan", "much", "%", "5%%"])
def test_a_canary_is_a_share_between_0_and_1(run: Run, share: str) -> None:
    result = run("deploy", "app", "--gpus", "1xcpu", "--canary", share)
    assert result.exit_code == 2
    assert "is not a share between 0% and 100%, such as 5%" in result.stderr


@pytest.mark.parametrize("duration", ["0", "-1m", "inf", "nan", "soon", "m", "5d"])
def test_a_canary_takes_a_duration(run: Run, duration: str) -> None:
    result = run("deploy", "app", "--gpus", "1xcpu", "--canary", "5%", "--canary-for", duration)
    assert result.exit_code == 2
    assert "is not a duration, such as 90s, 5m or 1h" in result.stderr
