import pytest

from docs.generators.markdown import code, plain, table


def test_a_table_has_a_line_for_each_row() -> None:
    assert table(("a", "b"), [("1", "2"), ("3", "4")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n"


@pytest.mark.parametrize(
    ("text", "written"), [("a b", "`a b`"), ("[a|b]", "`[a|b]`"), ("see `x`", "`` see `x` ``"), ("`x`", "`` `x` ``")]
)
def test_code_may_have_bars_and_backticks(text: str, written: str) -> None:
    assert code(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("use <release>-py3", "use \\<release\\>-py3"),
        ("run `a --b <c>`, or *", "run `a --b <c>`, or \\*"),
        ("[a](b) & __c__", "\\[a\\](b) \\& \\_\\_c\\_\\_"),
    ],
)
def test_only_backticks_mean_something_in_a_text(text: str, written: str) -> None:
    assert plain(text) == written
