import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import SpecError
from jigsaw_triton.spec.source import Path
from jigsaw_triton.spec.yaml_loader import LIMIT_DEPTH, LIMIT_NODES, parse_yaml

# Printable characters except line breaks, which YAML folds, and the byte order mark.
TEXT = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="\ufeff\xa0"), max_size=12)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def refusal(text: str) -> str:
    """Returns the diagnostics of a text, both those that end the reading and those that do not."""
    try:
        return "\n".join(str(problem) for problem in parse_yaml(text, "f.yaml").problems)
    except SpecError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("null", None),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("2026-01-01", "2026-01-01"),
        ("'true'", "true"),
        ('"7"', "7"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    data = parse_yaml(f"key: {text}\n", "f.yaml").data["key"]
    assert data == value
    assert type(data) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3", "duplicate key 'a'; keep one; the first is on line 1"),
        ("a: &x [1]\n", "f.yaml:1", "anchor &x"),
        ("a: [1]\nb: *x\n", "f.yaml:2", "alias *x"),
        ("a:\n  b: !!python/object/apply:os.system [ls]\n", "f.yaml:2", "tags are not supported"),
        ("a: !mine 1\n", "f.yaml:1", "tag !mine"),
        ("a: 1\nb: .nan\n", "f.yaml:2", ".nan is not a finite number"),
        ("a: -.Inf\n", "f.yaml:1", "-.Inf is not a finite number"),
        ("a: 1e999\n", "f.yaml:1", "1e999 is too large"),
        ("a: 1234567890123456789\n", "f.yaml:1", "is too large"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2", "more than one document"),
        ("a:\n\tb: 1\n", "f.yaml:2", "a tab is used"),
        ("a: b: c\n", "f.yaml:1", "unexpected ':'"),
        ("a: 1\nb\n", "f.yaml:", "a key is not followed by ':'"),
        ("a: [1, 2\n", "f.yaml:2", "this is not valid YAML"),
        ("a: 'x\n", "f.yaml:2", "this is not valid YAML"),
        ("? [x]\n: 1\n", "f.yaml:1", "a key must be plain text"),
        ("a: 1\n*x : 1\n", "f.yaml:2", "a key must be plain text"),
        ("a: x\nb: \x07\n", "f.yaml:2", "control character"),
        ('a: "\\0"\n', "f.yaml:1", "control character"),
        ('a: "\\ud800"\n', "f.yaml:1", "half a surrogate pair"),
        ("", "f.yaml", "the file is empty"),
        ("# only a comment\n", "f.yaml", "the file is empty"),
        ("%YAML 3.0\n---\na: 1\n", "f.yaml:1", "this is not valid YAML"),
    ],
)
def test_invalid_yaml_is_refused_with_its_line(text: str, where: str, words: str) -> None:
    messages = refusal(text).splitlines()
    assert any(message.startswith(where) and words in message for message in messages), messages


def test_valid_entries_are_read_despite_mistakes_in_others() -> None:
    parsed = parse_yaml("a: .nan\na: 1\nb: !t x\nc: 2\n", "f.yaml")
    assert len(parsed.problems) == 3
    assert parsed.data == {"a": None, "b": "x", "c": 2}
    assert parsed.unusable == {("a",)}


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_beyond_the_limit_is_refused(opening: str) -> None:
    assert f"nested more than {LIMIT_DEPTH} levels deep" in refusal(opening * (LIMIT_DEPTH + 1))
    assert f"nested more than {LIMIT_DEPTH} levels deep" in refusal(opening * 100_000)


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse_yaml("[" * LIMIT_DEPTH + "]" * LIMIT_DEPTH, "f.yaml").problems == ()


@pytest.mark.slow
def test_the_number_of_values_is_limited() -> None:
    assert parse_yaml("[" + "1," * (LIMIT_NODES - 1) + "]", "f.yaml").problems == ()
    assert f"more than {LIMIT_NODES} values" in refusal("[" + "1," * LIMIT_NODES + "]")


def test_lines_are_those_of_keys_and_items() -> None:
    source = parse_yaml("a:\n  b:\n    - 1\n    - {c: 2}\nd: >\n  x\n  y\n", "f.yaml").source
    assert source.line(("a", "b", 1, "c")) == 4
    assert source.line(("d",)) == 5
    assert source.line(("a", "nothing", "here")) == 1


def entries(data: Any, prefix: Path = ()) -> Iterator[Path]:
    yield prefix
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from entries(value, (*prefix, key))


@settings(deadline=None)
@given(DATA)
def test_json_reads_as_itself_and_every_entry_has_a_line(data: Any) -> None:
    parsed = parse_yaml(json.dumps(data, ensure_ascii=False, indent=1), "f.yaml")
    assert parsed.problems == ()
    assert parsed.data == data
    assert set(parsed.source.lines) == set(entries(data))


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("{}[]:,-&*!|>'\"%@#? \n\tab0.", max_size=60))
def test_no_text_raises_anything_but_a_spec_error(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except SpecError as error:
        assert error.diagnostics
