import json

import click
import pytest

from jigsaw_triton.cli.io.failure import ErrorFormat, Failure, report
from jigsaw_triton.errors import (
    ArtifactError,
    Diagnostic,
    InfeasibleError,
    InputError,
    JigsawError,
    MissingDependencyError,
    SpecError,
    StateError,
)

TWO = SpecError([Diagnostic("g.yaml", 3, "wrong", "right"), Diagnostic("c.yaml", 0, "missing")])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x"), 2),
        (TWO, 2),
        (ArtifactError("x"), 2),
        (click.UsageError("x"), 2),
        (InfeasibleError(["x"]), 3),
        (StateError("x"), 4),
        (MissingDependencyError("x"), 1),
        (JigsawError("x"), 1),
        (click.ClickException("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, status: int) -> None:
    assert Failure.of(error).status == status


def test_every_mistake_is_printed_on_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(TWO, ErrorFormat()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["g.yaml:3: wrong; right", "c.yaml: missing", "error: 2 mistakes in the input"]


def test_an_error_is_printed_with_its_place_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(StateError("nothing runs", where="/state", hint="deploy"), ErrorFormat())
    assert capsys.readouterr().err == "error: /state: nothing runs\nhint: deploy\n"


def test_every_reason_is_printed_on_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(InfeasibleError(["too slow", "too many"], hint="buy"), ErrorFormat())
    assert capsys.readouterr().err.splitlines() == [
        "error: no plan is feasible",
        "  too slow",
        "  too many",
        "hint: buy",
    ]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (
            InputError("wrong", where="here", hint="do"),
            {"message": "wrong", "where": "here", "hint": "do", "diagnostics": [], "reasons": []},
        ),
        (
            TWO,
            {
                "message": "2 mistakes in the input",
                "where": "",
                "hint": "",
                "diagnostics": [
                    {"file": "g.yaml", "line": 3, "message": "wrong", "hint": "right"},
                    {"file": "c.yaml", "line": 0, "message": "missing", "hint": ""},
                ],
                "reasons": [],
            },
        ),
    ],
)
def test_an_error_as_json_goes_to_stdout(
    capsys: pytest.CaptureFixture[str], error: Exception, found: dict[str, object]
) -> None:
    report(error, ErrorFormat(json=True))
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {"error": found}


def test_an_infeasible_problem_as_json_has_its_conflict(capsys: pytest.CaptureFixture[str]) -> None:
    report(
        InfeasibleError(["a", "b"], conflict=["g.accuracy"], nearest={"g.accuracy": 0.8}, unsettled=["g.demand_rps"]),
        ErrorFormat(json=True),
    )
    assert json.loads(capsys.readouterr().out) == {
        "status": "infeasible",
        "reasons": ["a", "b"],
        "conflict": ["g.accuracy"],
        "nearest": {"g.accuracy": 0.8},
        "unsettled": ["g.demand_rps"],
        "error": {"message": "no plan is feasible", "where": "", "hint": "", "diagnostics": [], "reasons": ["a", "b"]},
    }


def test_an_unexpected_error_has_a_traceback_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        report(error, ErrorFormat(json=True, debug=True))
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert json.loads(captured.out)["error"]["message"] == "unexpected ValueError: odd"


def test_an_expected_error_has_no_traceback_even_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    report(StateError("x"), ErrorFormat(debug=True))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "environment", "form"),
    [
        ([], {}, ErrorFormat()),
        (["plan", "-o", "json"], {}, ErrorFormat(json=True)),
        (["plan", "-ojson"], {}, ErrorFormat(json=True)),
        (["plan", "--output=json", "--debug"], {}, ErrorFormat(json=True, debug=True)),
        (["plan", "--output", "json"], {}, ErrorFormat(json=True)),
        (["plan", "-o"], {}, ErrorFormat()),
        (["plan"], {"JIGSAW_OUTPUT": "json"}, ErrorFormat(json=True)),
        (["plan", "-o", "table"], {"JIGSAW_OUTPUT": "json"}, ErrorFormat()),
        (["plan"], {"JIGSAW_DEBUG": "1"}, ErrorFormat(debug=True)),
        (["plan"], {"JIGSAW_DEBUG": "0"}, ErrorFormat()),
    ],
)
def test_the_form_of_errors_is_read_from_arguments_and_environment(
    args: list[str], environment: dict[str, str], form: ErrorFormat
) -> None:
    assert ErrorFormat.of(args, environment) == form
