import json

import click
import pytest

from jigsaw_triton.cli.io.failure import Failure, Wishes, report
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
def test_the_exit_code(error: Exception, status: int) -> None:
    assert Failure.of(error).status == status


def test_every_mistake_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(TWO, Wishes()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == ["g.yaml:3: wrong; right", "c.yaml: missing", "error: 2 mistakes in the input"]


def test_place_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(StateError("nothing runs", where="/state", hint="deploy"), Wishes())
    assert capsys.readouterr().err == "error: /state: nothing runs\nhint: deploy\n"


def test_every_reason_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(InfeasibleError(["too slow", "too many"], hint="buy"), Wishes())
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
def test_as_json_it_goes_to_stdout(
    capsys: pytest.CaptureFixture[str], error: Exception, found: dict[str, object]
) -> None:
    report(error, Wishes(json=True))
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out) == {"error": found}


def test_why_no_plan_is_feasible_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    report(
        InfeasibleError(["a", "b"], conflict=["g.accuracy"], nearest={"g.accuracy": 0.8}, unsettled=["g.demand_rps"]),
        Wishes(json=True),
    )
    assert json.loads(capsys.readouterr().out) == {
        "status": "infeasible",
        "reasons": ["a", "b"],
        "conflict": ["g.accuracy"],
        "nearest": {"g.accuracy": 0.8},
        "unsettled": ["g.demand_rps"],
        "error": {"message": "no plan is feasible", "where": "", "hint": "", "diagnostics": [], "reasons": ["a", "b"]},
    }


def test_a_defect_is_told_with_its_story_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        report(error, Wishes(json=True, debug=True))
    told = capsys.readouterr()
    assert "Traceback" in told.err
    assert json.loads(told.out)["error"]["message"] == "unexpected ValueError: odd"


def test_what_was_foreseen_has_no_traceback_even_then(capsys: pytest.CaptureFixture[str]) -> None:
    report(StateError("x"), Wishes(debug=True))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "environment", "wishes"),
    [
        ([], {}, Wishes()),
        (["plan", "-o", "json"], {}, Wishes(json=True)),
        (["plan", "-ojson"], {}, Wishes(json=True)),
        (["plan", "--output=json", "--debug"], {}, Wishes(json=True, debug=True)),
        (["plan", "--output", "json"], {}, Wishes(json=True)),
        (["plan", "-o"], {}, Wishes()),
        (["plan"], {"JIGSAW_OUTPUT": "json"}, Wishes(json=True)),
        (["plan", "-o", "table"], {"JIGSAW_OUTPUT": "json"}, Wishes()),
        (["plan"], {"JIGSAW_DEBUG": "1"}, Wishes(debug=True)),
        (["plan"], {"JIGSAW_DEBUG": "0"}, Wishes()),
    ],
)
def test_wishes(args: list[str], environment: dict[str, str], wishes: Wishes) -> None:
    assert Wishes.of(args, environment) == wishes
