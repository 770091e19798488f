import pytest

from benchmarks import parts
from benchmarks.effort import FULL, SMOKE


@pytest.mark.parametrize(
    ("arguments", "names", "rounds"),
    [([], ["a", "b"], FULL.rounds), (["--smoke", "b"], ["b"], SMOKE.rounds), (["a", "--rounds", "9"], ["a"], 9)],
)
def test_the_command_line_chooses_parts_and_their_effort(arguments: list[str], names: list[str], rounds: int) -> None:
    found, effort = parts.chosen({"a": 1, "b": 2}, parts.parser("dataplane", "ab").parse_args(arguments))
    assert (list(found), effort.rounds) == (names, rounds)


def test_rounds_are_a_positive_integer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parts.parser("dataplane", "ab").parse_args(["--rounds", "0"])
    assert "--rounds: must be a positive integer, not '0'" in capsys.readouterr().err
