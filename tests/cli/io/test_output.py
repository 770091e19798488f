import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jigsaw_triton.cli.io.output import Output, figures, listed, write_file
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError

TABLE = Table.of(("name", "count", "share"), [("a", 1, "50%"), ("bcd", 20, None)], title="things")


def test_columns_of_numbers_are_set_to_the_right() -> None:
    assert TABLE.plain() == "things\nname  count  share\na         1    50%\nbcd      20\n"


def test_a_table_without_rows_is_its_header() -> None:
    assert Table.of(("a", "b"), []).plain() == "a  b\n"


def test_words_in_a_column_set_it_to_the_left() -> None:
    assert Table.of(("count",), [(1,), ("none",)]).plain() == "count\n1\nnone\n"


def test_on_a_terminal_no_cell_is_cut() -> None:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=20).print(Table.of(("path",), [("x" * 50,)]).rich())
    assert stream.getvalue().count("x") == 50


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.result({}, "[bold]x[/bold] :smile:", Table.of(("a",), [("[red]",)]))
    out.warn("[y]")
    told = capsys.readouterr()
    assert told.out == "[bold]x[/bold] :smile:\na\n[red]\n"
    assert told.err == "warning: [y]\n"


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("json")
    out.note("beside")
    out.result({"a": [1]}, "not this")
    told = capsys.readouterr()
    assert json.loads(told.out) == {"a": [1]}
    assert told.err == "beside\n"


def test_long_lines_are_not_broken_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_what_is_being_done_is_told_by_lines_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().working("first") as tell:
        tell("second")
    assert capsys.readouterr().err == "first\nsecond\n"


def test_no_colours_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.result({}, Table.of(("",), [("error",)]))
    out.warn("x")
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.03124, "0.0312"), (1.5, "1.5"), (12.34, "12.3"), (1480.4, "1480"), (1e6, "1000000")],
)
def test_figures(value: float, text: str) -> None:
    assert figures(value) == text


@pytest.mark.parametrize(
    ("items", "text"), [((), "none"), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_listed(items: tuple[str, ...], text: str) -> None:
    assert listed(items) == text


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.txt", "x")
    assert (tmp_path / "a" / "b.txt").read_text() == "x"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_file(tmp_path / "a" / "b.txt", "x")
