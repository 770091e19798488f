"""docs/reference/cli.md documents every command, and its examples use options that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from jigsaw_triton.cli.main import COMMANDS, program

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
NAMES = [name for section in COMMANDS.values() for name in section]


def flags(name: str) -> set[str]:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    return {flag for c in leaves for param in c.params if isinstance(param, click.Option) for flag in param.opts}


def test_every_command_has_a_section() -> None:
    assert list(SECTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_examples_use_options_that_exist(name: str) -> None:
    for line in re.findall(r"^jigsaw-triton (.+)$", SECTIONS[name], re.MULTILINE):
        first, *words = shlex.split(line)
        assert first == name
        assert {word for word in words if word.startswith("-")} <= flags(name)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/models.md", "docs/tutorial/profiles.md"])
def test_other_pages_use_commands_and_options_that_exist(page: str) -> None:
    text = (ROOT / page).read_text().replace("\\\n", "")
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.findall(r"^jigsaw-triton (.+)$", block, re.MULTILINE)]
    assert lines
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        assert {word for word in words if word.startswith("-")} <= flags(name)
