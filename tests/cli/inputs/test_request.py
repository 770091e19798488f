"""Flags that do not go together, or with what a cluster.yaml says."""

from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.cli.inputs.files import read_wanted
from jigsaw_triton.cli.inputs.request import Request
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.errors import SpecError
from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("asked", "where", "told"),
    [
        (
            Request((), gpus="1xcpu", http=8001),
            "--http, --grpc, --metrics",
            "not distinct: http 8001, grpc 8001, metrics 8002",
        ),
        (Request((), gpus="1xcpu", address="localhost"), "--address", "'localhost' is not an IPv4 address"),
        (Request((), gpus="1xcpu", address="::1"), "--address", "'::1' is not an IPv4 address"),
    ],
)
def test_a_gateway_that_cannot_listen_is_refused(app: Path, asked: Request, where: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        replace(asked, graphs=(str(app),)).read(Output(), read_wanted)
    (mistake,) = caught.value.diagnostics
    assert mistake.file == where
    assert told in mistake.message


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
