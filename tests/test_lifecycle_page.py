"""docs/contributing/lifecycle.md has exactly the states that the code has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.persistence.schema import SCHEMA
from jigsaw_triton.gpus.model import CreationStage

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "contributing" / "lifecycle.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def drawn(section: str) -> set[str]:
    """States of the section's diagram."""
    ends = re.findall(r"^  (\S+) --> (\S+?)(?::|$)", SECTIONS[section], re.MULTILINE)
    return {state for end in ends for state in end} - {"[*]"}


def listed(section: str, header: str) -> set[str]:
    """First cells, in backticks, of the section's table with this header."""
    _, _, table = SECTIONS[section].partition(f"| {header} |")
    return set(re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.MULTILINE))


def function(path: str, name: str) -> ast.AST:
    tree = ast.parse((ROOT / "jigsaw_triton" / path).read_text())
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    return found


def texts(node: ast.AST | None) -> Iterator[str]:
    """Texts that an expression may evaluate to, if it consists of texts and conditions."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body)
            yield from texts(other)
        case _:
            raise AssertionError(f"{ast.dump(node) if node is not None else None} is no text")


def test_the_page_has_the_phases_of_a_deployment() -> None:
    phases = {phase.value for phase in Phase}
    assert drawn("Deployment") == phases
    assert listed("Deployment", "phase | meaning") == phases
    recovery = SECTIONS["Controller"].partition("| phase of the checkpoint |")[2]
    assert {phase for phase in phases if f"`{phase}`" in recovery} == phases


def test_the_page_has_the_states_of_a_server() -> None:
    returns = (n for n in ast.walk(function("console/status.py", "_server_state")) if isinstance(n, ast.Return))
    states = {text for node in returns for text in texts(node.value)}
    assert drawn("Gateway and workers") == states
    assert listed("Gateway and workers", "state | meaning") == states


def test_the_page_has_the_states_of_the_edge() -> None:
    (assigned,) = (
        node.value
        for node in ast.walk(function("servers/haproxy/keeper.py", "status"))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "state"
    )
    assert listed("Edge", "state | meaning") == set(texts(assigned))


def test_the_page_has_the_stages_of_the_creation_of_an_instance() -> None:
    stages = {stage.name for stage in CreationStage}
    assert {state for state in drawn("MIG instances") if state.isupper()} == stages
    assert listed("MIG instances", "step | journal | what may exist on the GPU") == stages


def test_tables_that_the_page_names_are_in_the_journal() -> None:
    tables = set(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", SCHEMA))
    assert {"creations", "instances", "destructions"} <= tables
    named = re.findall(r"rows? in `(\w+)`(?: and `(\w+)`)?", TEXT)
    assert {name for names in named for name in names if name} <= tables


def test_modules_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", TEXT))
    assert len(named) > 15
    bases = (ROOT, ROOT / "jigsaw_triton")
    assert sorted(name for name in named if not any((base / name).exists() for base in bases)) == []
