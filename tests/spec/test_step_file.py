from pathlib import Path

import pytest

from jigsaw_triton.spec.step_file import LIMIT_BYTES, Parameters, parse_step, read_step

GOOD = "import json\nimport numpy as np\n\ndef step(A, B=1, *, C, D=2, **rest):\n    return {}\n"

FLAWS: dict[str, tuple[str, int, str]] = {
    "syntax error": ("x = 1\ndef step(:\n", 2, "this is not valid Python (invalid syntax)"),
    "null byte": ("x = '\0'\n", 0, "this is not valid Python"),
    "deep nesting": (f"x = {'(' * 5000}{')' * 5000}\n", 0, "this is not valid Python"),
    "nesting too deep for the parser": (f"x = {'-' * 90_000}1\n", 0, "this is not valid Python (nested too deeply)"),
    "return outside a function": (
        "def step(A): ...\nreturn 1\n",
        2,
        "this is not valid Python ('return' outside function)",
    ),
    "no function": ("def steps(A): ...\n", 0, "there is no function step"),
    "class instead of a function": ("\nclass step: ...\n", 2, "there is no function step"),
    "coroutine function": ("async def step(A): ...\n", 1, "there is no function step"),
    "positional-only parameter": ("def step(A, /): ...\n", 1, "step has positional-only parameters"),
    "missing module": ("import os\nimport nowhere.at.all\ndef step(A): ...\n", 2, "no module 'nowhere'"),
    "name from a missing module": ("from nowhere import x\ndef step(A): ...\n", 1, "there is no module 'nowhere'"),
    "relative import": ("from . import x\ndef step(A): ...\n", 1, "a step cannot use relative imports"),
}


def test_the_parameters_of_the_function_are_read() -> None:
    file = parse_step(GOOD)
    assert (file.source, file.flaws) == (GOOD, ())
    assert file.parameters == Parameters(4, ("A", "B", "C", "D"), ("A", "C"), any_name=True)


@pytest.mark.parametrize(("source", "line", "message"), FLAWS.values(), ids=list(FLAWS))
def test_a_flaw_is_reported_with_its_line(source: str, line: int, message: str) -> None:
    (flaw,) = parse_step(source).flaws
    assert message in flaw.message
    assert flaw.line == line or line == 0


def test_the_last_definition_counts() -> None:
    parameters = parse_step("def step(A): ...\ndef step(B): ...\n").parameters
    assert parameters is not None
    assert parameters.names == ("B",)


def test_a_warning_of_python_is_not_a_flaw() -> None:
    assert parse_step("def step(A):\n    return A is 1, '\\d'\n").flaws == ()


def test_imports_that_may_fail_are_not_checked() -> None:
    source = "try:\n    import nowhere\nexcept ImportError:\n    pass\ndef step(A):\n    import elsewhere\n"
    assert parse_step(source).flaws == ()


def test_the_code_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "step.py"
    path.write_text(f"open({str(trace)!r}, 'w')\ndef step(A): ...\n")
    assert read_step(path).flaws == ()
    assert not trace.exists()


def test_a_file_that_cannot_be_read_as_text_is_a_flaw(tmp_path: Path) -> None:
    path = tmp_path / "step.py"
    path.write_bytes(b"x = 1\ny = '\xe9'\n")
    assert [(flaw.line, flaw.message) for flaw in read_step(path).flaws] == [(2, "the file is not UTF-8 text")]
    path.write_text("#" * (LIMIT_BYTES + 1))
    assert "larger than 1024 KiB" in read_step(path).flaws[0].message
