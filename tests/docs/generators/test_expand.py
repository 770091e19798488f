"""Pages have their generated parts, and nothing is forgotten."""

from pathlib import Path
from typing import get_args

import pytest

import jigsaw_triton
from docs.generators.expand import GENERATORS, MARK, expand
from jigsaw_triton.cli.main import COMMANDS
from jigsaw_triton.spec.json_schema import Kind

DOCS = Path(__file__).resolve().parents[3] / "docs"


def marks(page: str) -> list[tuple[str, list[str]]]:
    return [(name, arguments.split()) for name, arguments in MARK.findall((DOCS / page).read_text())]


def test_every_comment_names_a_generator() -> None:
    pages = [path for path in DOCS.rglob("*.md") if "<!-- generated:" in path.read_text()]
    assert len(pages) >= 3
    for page in pages:
        found = marks(str(page.relative_to(DOCS)))
        assert len(found) == page.read_text().count("<!-- generated:"), page
        assert {name for name, _ in found} <= set(GENERATORS)


def test_every_command_has_its_options() -> None:
    names = [name for section in COMMANDS.values() for name in section]
    assert marks("reference/cli.md") == [("options", [name]) for name in names]


def test_every_public_name_is_documented_once() -> None:
    names = [name for kind, arguments in marks("reference/python.md") if kind == "python" for name in arguments]
    assert sorted(names) == sorted(jigsaw_triton.__all__)


def test_every_file_has_its_keys() -> None:
    sections = [arguments for name, arguments in marks("reference/files.md") if name == "keys"]
    assert [kind for kind, *keys in sections if not keys] == list(get_args(Kind))
    assert ["graph", "tasks", "variants"] in sections


def test_the_comment_is_replaced() -> None:
    text = expand("a\n\n<!-- generated: python plan deploy -->\n\nb\n")
    assert text == "a\n\n::: jigsaw_triton.plan\n\n::: jigsaw_triton.deploy\n\nb\n"


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(LookupError, match="no public name plam"):
        expand("<!-- generated: python plam -->")
