from pathlib import Path

import pytest

from jigsaw_triton.spec.step_file import LIMIT_BYTES, Parameters, look_at, read_step

GOOD = "import json\nimport numpy as np\n\ndef step(A, B=1, *, C, D=2, **rest):\n    return {}\n"

FLAWS: dict[str, tuple[str, int, str]] = {
    "no Python": ("x = 1\ndef step(:\n", 2, "this is not Python (invalid syntax)"),
    "a zero byte": ("x = '\0'\n", 0, "this is not Python"),
    "too deep": (f"x = {'(' * 5000}{')' * 5000}\n", 0, "this is not Python"),
    "too deep for the parser": (f"x = {'-' * 90_000}1\n", 0, "this is not Python (nested too deeply)"),
    "no Python that could run": ("def step(A): ...\nreturn 1\n", 2, "this is not Python ('return' outside function)"),
    "no function": ("def steps(A): ...\n", 0, "there is no function step"),
    "a class": ("\nclass step: ...\n", 2, "there is no function step"),
    "a coroutine": ("async def step(A): ...\n", 1, "there is no function step"),
    "by position": ("def step(A, /): ...\n", 1, "step is called by names, not by position"),
    "a module that is not there": ("import os\nimport nowhere.at.all\ndef step(A): ...\n", 2, "no module 'nowhere'"),
    "a name of one": ("from nowhere import x\ndef step(A): ...\n", 1, "there is no module 'nowhere'"),
    "a file beside it": ("from . import x\ndef step(A): ...\n", 1, "a step has no package to import from"),
}


def test_what_the_function_takes() -> None:
    file = look_at(GOOD)
    assert (file.source, file.flaws) == (GOOD, ())
    assert file.parameters == Parameters(4, ("A", "B", "C", "D"), ("A", "C"), any_name=True)


@pytest.mark.parametrize(("source", "line", "message"), FLAWS.values(), ids=list(FLAWS))
def test_a_flaw_is_told_with_its_line(source: str, line: int, message: str) -> None:
    (flaw,) = look_at(source).flaws
    assert message in flaw.message
    assert flaw.line == line or line == 0


def test_what_is_defined_last_counts() -> None:
    parameters = look_at("def step(A): ...\ndef step(B): ...\n").parameters
    assert parameters is not None
    assert parameters.names == ("B",)


def test_what_python_warns_of_is_no_flaw() -> None:
    assert look_at("def step(A):\n    return A is 1, '\\d'\n").flaws == ()


def test_imports_that_may_fail_are_not_looked_for() -> None:
    source = "try:\n    import nowhere\nexcept ImportError:\n    pass\ndef step(A):\n    import elsewhere\n"
    assert look_at(source).flaws == ()


def test_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "step.py"
    path.write_text(f"open({str(trace)!r}, 'w')\ndef step(A): ...\n")
    assert read_step(path).flaws == ()
    assert not trace.exists()


def test_a_file_that_cannot_be_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "step.py"
    path.write_bytes(b"x = 1\ny = '\xe9'\n")
    assert [(flaw.line, flaw.message) for flaw in read_step(path).flaws] == [(2, "the file is not UTF-8 text")]
    path.write_text("#" * (LIMIT_BYTES + 1))
    assert "larger than 1024 KiB" in read_step(path).flaws[0].message
