import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jigsaw_triton.cli.io.output import Output, figures, listed, write_file
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError

TABLE = Table.of(("name", "count", "share"), [("a", 1, "50%"), ("bcd", 20, None)], title="things")


def test_columns_of_numbers_are_right_aligned() -> None:
    assert TABLE.plain() == "things\nname  count  share\na         1    50%\nbcd      20\n"


def test_a_table_without_rows_has_only_its_header() -> None:
    assert Table.of(("a", "b"), []).plain() == "a  b\n"


def test_a_column_with_words_is_left_aligned() -> None:
    assert Table.of(("count",), [(1,), ("none",)]).plain() == "count\n1\nnone\n"


def test_no_cell_is_truncated_on_a_terminal() -> None:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=20).print(Table.of(("path",), [("x" * 50,)]).rich())
    assert stream.getvalue().count("x") == 50


def test_brackets_are_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.result({}, "[bold]x[/bold] :smile:", Table.of(("a",), [("[red]",)]))
    out.warn("[y]")
    captured = capsys.readouterr()
    assert captured.out == "[bold]x[/bold] :smile:\na\n[red]\n"
    assert captured.err == "warning: [y]\n"


def test_json_output_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("json")
    out.note("beside")
    out.result({"a": [1]}, "not this")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [1]}
    assert captured.err == "beside\n"


def test_long_lines_are_not_wrapped_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_progress_is_printed_as_lines_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().working("first") as report:
        report("second")
    assert capsys.readouterr().err == "first\nsecond\n"


def test_pipes_get_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.result({}, Table.of(("",), [("error",)]))
    out.warn("x")
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.03124, "0.0312"), (1.5, "1.5"), (12.34, "12.3"), (1480.4, "1480"), (1e6, "1000000")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert figures(value) == text


@pytest.mark.parametrize(
    ("items", "text"), [((), "none"), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_items_are_joined_with_commas_and_and(items: tuple[str, ...], text: str) -> None:
    assert listed(items) == text


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.txt", "x")
    assert (tmp_path / "a" / "b.txt").read_text() == "x"


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_file(tmp_path / "a" / "b.txt", "x")


def test_json_has_null_for_what_is_not_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").result({"error": float("nan"), "most": [1.5, (float("inf"), "NaN", 2)]})
    assert json.loads(capsys.readouterr().out) == {"error": None, "most": [1.5, [None, "NaN", 2]]}
