import ast
from textwrap import dedent

import pytest

from docs.generators.sources import Module, Texts, parse

WORDS = """
AGAIN = "plan again"
NAME = f"{AGAIN} now"

def advice(found: str) -> str:
    if found:
        return f"use {found}"
    return "look"
"""


def resolved(body: str) -> list[str]:
    """Texts that the argument of `show` may be in a module."""
    modules: dict[str, Module] = {
        "words": parse("pack", "words", WORDS),
        "it": parse(
            "pack", "it", "import pack\nfrom pack import words\nfrom pack.words import AGAIN, advice\n" + dedent(body)
        ),
    }
    (call,) = (node for node in modules["it"].nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "show")
    return Texts(modules).of(call.args[0], modules["it"])


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        ("'a'", ["a"]),
        ("'a' + 'b' + x", ["ab…"]),
        ("f'{x} of {y}{z}'", ["… of …"]),
        ("'a' if x else 'b'", ["a", "b"]),
        ("'a ' + ('b' if x else 'c')", ["a b", "a c"]),
        ("['a', 'b']", ["a", "b"]),
        ("x", ["…"]),
        ("7", ["…"]),
        ("AGAIN", ["plan again"]),
        ("f'{AGAIN}, {x}'", ["plan again, …"]),
        ("words.NAME", ["plan again now"]),
        ("advice(x)", ["use …", "look"]),
        ("x.advice(y)", ["…"]),
    ],
)
def test_an_expression_has_the_texts_that_it_may_evaluate_to(expression: str, texts: list[str]) -> None:
    assert resolved(f"show({expression})") == texts


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ("text = 'early'\n    show(text)\n    text = 'late'", ["early"]),
        ("text = 'first'\n    text = 'second'\n    show(text)", ["second"]),
        ("if x:\n        text = 'a'\n    else:\n        text = 'b'\n    show(text)", ["a", "b"]),
        ("text = 'outer'\n    if x:\n        show(text)", ["outer"]),
        ("text, other = 'a', 'b'\n    show(other)", ["b"]),
        ("text, other = x()\n    show(other)", ["…"]),
        ("text, other = ('a', 'b') if x else ('c', 'd')\n    show(other)", ["b", "d"]),
        ("show(x)", ["…"]),
    ],
)
def test_a_local_variable_has_the_values_of_the_nearest_assignment_before(body: str, texts: list[str]) -> None:
    assert resolved(f"def f(x):\n    {body}") == texts
