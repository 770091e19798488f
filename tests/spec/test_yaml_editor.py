import pytest

from jigsaw_triton.spec.yaml_editor import with_entry, with_value
from jigsaw_triton.spec.yaml_loader import parse_yaml
from jigsaw_triton.spec.yaml_writer import Inline

KIND = Inline(x=1, y=[2])
PATH = ("a", "new")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n  b: 1\n", "a:\n  b: 1\n  new: {x: 1, y: [2]}\n"),
        ("a:\n    b: 1", "a:\n    b: 1\n    new: {x: 1, y: [2]}"),
        (
            "a:\n  b: 1  # one\n\n# rest\nc: 2\n",
            "a:\n  b: 1  # one\n  new: {x: 1, y: [2]}\n\n# rest\nc: 2\n",
        ),
        ("a: {b: 1}  # one\n", "a: {b: 1, new: {x: 1, y: [2]}}  # one\n"),
        ("a: {}\nc: 2\n", "a: {new: {x: 1, y: [2]}}\nc: 2\n"),
        ("a: {\n  b: [1, 2], # two\n}\n", "a: {\n  b: [1, 2], new: {x: 1, y: [2]}, # two\n}\n"),
        ("a:\n  b:\n    c: x # last\n", "a:\n  b:\n    c: x # last\n  new: {x: 1, y: [2]}\n"),
        ("a:\n  b:\nc: 1\n", "a:\n  b:\n  new: {x: 1, y: [2]}\nc: 1\n"),
        ('{"a": {"b": "{"}}', '{"a": {"b": "{", new: {x: 1, y: [2]}}}'),
        ("a:\r\n  b: 1\r\n", "a:\r\n  b: 1\r\n  new: {x: 1, y: [2]}\r\n"),
        (
            "a:\n  b: 'x'\n  é: \"ü # no comment\"\n",
            "a:\n  b: 'x'\n  é: \"ü # no comment\"\n  new: {x: 1, y: [2]}\n",
        ),
    ],
    ids=["block", "no end of line", "comments", "flow", "empty", "lines", "nested", "null", "JSON", "Windows", "text"],
)
def test_an_entry_is_added_at_the_end_of_its_mapping(before: str, after: str) -> None:
    assert with_entry(before, PATH, KIND) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n- {b: 1}\n- c: 2\n  d: 3 # three\n", "a:\n- {b: 1}\n- c: 2\n  d: 3 # three\n- {e: x}\n"),
        ("a:\n    - {b: 1}\n    - {b: 2}\nf: 1\n", "a:\n    - {b: 1}\n    - {b: 2}\n    - {e: x}\nf: 1\n"),
        ("a: [1, 2]\n", "a: [1, 2, {e: x}]\n"),
    ],
)
def test_an_item_is_added_at_the_end_of_its_list(before: str, after: str) -> None:
    assert with_entry(before, ("a", 2), Inline(e="x")) == after


def test_an_item_may_take_several_lines() -> None:
    value = {"e": "x", "f": {"g": Inline(h=1), "i": [2]}}
    text = with_entry("a:\n  - {b: 1}\nc: 2\n", ("a", 1), value)
    assert text == "a:\n  - {b: 1}\n  - e: x\n    f:\n      g: {h: 1}\n      i:\n      - 2\nc: 2\n"
    assert with_entry("a: [1]\n", ("a", 1), value) == "a: [1, {e: x, f: {g: {h: 1}, i: [2]}}]\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n- {b: 1}\n- 2 # two\nc: 3\n", "a:\n- {b: 1}\n- 2 # two\n# why: this\n- {e: x}\nc: 3\n"),
        ("  a: [1, 2] # two\n", "  a: [1, 2,\n      # why: this\n      {e: x}] # two\n"),
        ("a: []\r\n", "a: [\r\n    # why: this\r\n    {e: x}]\r\n"),
    ],
    ids=["block", "flow", "empty"],
)
def test_a_comment_is_on_the_line_above(before: str, after: str) -> None:
    count = len(parse_yaml(before, "").data["a"])
    assert with_entry(before, ("a", count), Inline(e="x"), comment="why: this") == after


def test_a_value_may_take_several_lines() -> None:
    text = with_entry("a:\n  b: {c: 1}\n", PATH, {"x": KIND, "y": [Inline(z=1)]})
    assert text == "a:\n  b: {c: 1}\n  new:\n    x: {x: 1, y: [2]}\n    y:\n    - {z: 1}\n"
    assert parse_yaml(text, "").data["a"]["new"] == {"x": KIND, "y": [{"z": 1}]}


@pytest.mark.parametrize(
    "text",
    ["a: 1\n", "b: {c: 1}\n", "a:\n", "a:\n  b: |\n    one\n    two\n\n\nc: 1\n", "a: {b: 1, # one\n  c}\n"],
    ids=["scalar", "missing", "null", "block text", "comment in flow"],
)
def test_a_layout_that_cannot_be_edited_is_refused_or_edited_correctly(text: str) -> None:
    try:
        edited = with_entry(text, PATH, 5)
    except ValueError:
        return
    before = parse_yaml(text, "").data
    assert parse_yaml(edited, "").data == {**before, "a": {**before["a"], "new": 5}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n  new: 1  # one\n  b: 2\n", "a:\n  new: 0.5  # one\n  b: 2\n"),
        ("a: {new: 28.0, b: 2} # end\n", "a: {new: 0.5, b: 2} # end\n"),
        ("a:\n  b: 2\n", "a:\n  b: 2\n  new: 0.5\n"),
        ("a: {}\n", "a: {new: 0.5}\n"),
        ("a:\n  new:\n    x: 1\n    y: [2]\n# rest\nb: 1\n", "a:\n  new:\n    0.5\n# rest\nb: 1\n"),
        ("a:\r\n  new: 'one'\r\n", "a:\r\n  new: 0.5\r\n"),
        ("a:\n  new:\n  b: 2\n", "a:\n  new: 0.5\n  b: 2\n"),
    ],
    ids=["block", "flow", "missing", "empty", "nested", "Windows", "null"],
)
def test_a_value_is_replaced_or_added(before: str, after: str) -> None:
    assert with_value(before, PATH, 0.5) == after


@pytest.mark.parametrize("text", ["a:\n- {b: 1} # one\n- {c: 1}\n", "a: [{b: 1}, {c: 1}]\n"])
def test_an_item_is_replaced_or_added(text: str) -> None:
    assert parse_yaml(with_value(text, ("a", 1), Inline(d=2)), "").data == {"a": [{"b": 1}, {"d": 2}]}
    assert parse_yaml(with_value(text, ("a", 2), Inline(d=2)), "").data == {"a": [{"b": 1}, {"c": 1}, {"d": 2}]}
