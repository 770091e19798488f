"""Checks that the checks of `test_architecture` find what they should."""

import pytest

from tests.test_architecture import back_imports, back_imports_of_rooms, io_uses, may_import


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("planner.latency.pareto", "from jigsaw_triton.planner.search.solve import x", ["planner.search.solve"]),
        ("planner.capacity", "from jigsaw_triton.planner.transition import moves", ["planner.transition.moves"]),
        ("planner.capacity", "from jigsaw_triton.planner import capacity", []),
        ("planner.search.solve", "import jigsaw_triton.planner", ["planner"]),
        ("planner.search.solve", "from jigsaw_triton.planner.latency.pareto import x", []),
    ],
)
def test_an_import_against_the_order_of_rooms_is_found(module: str, text: str, found: list[str]) -> None:
    names = [
        "planner",
        "planner.capacity",
        "planner.latency.pareto",
        "planner.search.solve",
        "planner.transition.moves",
    ]
    assert back_imports_of_rooms({**dict.fromkeys(names, ""), module: text}) == [
        f"{module} imports {other}" for other in found
    ]


@pytest.mark.parametrize(
    ("module", "name", "allowed"),
    [
        ("runtime.steps", "json", True),
        ("runtime.steps", "numpy.typing", True),
        ("runtime.steps", "jigsaw_triton.runtime.spec", True),
        ("runtime.steps", "jigsaw_triton.errors", False),
        ("runtime.steps", "jigsaw_triton", False),
        ("runtime.steps", "torch", False),
        ("runtime.runners.torch", "torch", True),
        ("runtime.runners.torch", "requests", False),
    ],
)
def test_the_runtime_may_import_only_allowed_modules(module: str, name: str, allowed: bool) -> None:
    assert may_import(module, name) is allowed


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        (
            "graph.build",
            "from jigsaw_triton.planner.domain.plan import Plan",
            "graph.build imports planner.domain.plan",
        ),
        ("graph.build", "def f():\n    import jigsaw_triton.cli.main", "graph.build imports cli.main"),
        ("graph.build", "from ..planner.domain import plan", "graph.build imports planner.domain.plan"),
        ("graph.build", "from jigsaw_triton import planner", "graph.build imports planner"),
        ("graph.build", "if TYPE_CHECKING:\n    from jigsaw_triton.cli import main", "graph.build imports cli.main"),
        ("gpus.model", "from jigsaw_triton.profiles.table import X", "gpus.model imports profiles.table"),
        ("runtime.flow", "from jigsaw_triton.errors import JigsawError", "runtime.flow imports errors"),
        ("errors", "from jigsaw_triton.graph.model import Task", "errors imports graph.model"),
    ],
)
def test_every_form_of_back_import_is_found(module: str, text: str, found: str) -> None:
    others = dict.fromkeys(
        ["planner", "planner.domain.plan", "cli.main", "profiles.table", "errors", "graph.model"], ""
    )
    assert back_imports({**others, module: text}) == [found]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("planner.domain.plan", "from jigsaw_triton.graph.model import Task"),
        ("planner.domain.plan", "from jigsaw_triton.planner.domain import problem"),
        ("planner.latency.latency", "from jigsaw_triton.planner.domain import problem"),
        ("compiler.config", "from jigsaw_triton.runtime.spec import to_json"),
        ("gpus.model", "from jigsaw_triton.errors import JigsawError"),
        ("gpus.model", "import jigsaw_triton"),
        ("gpus.model", "from jigsaw_triton import __version__"),
    ],
)
def test_an_allowed_import_is_not_reported(module: str, text: str) -> None:
    assert back_imports({module: text}) == []


@pytest.mark.parametrize(
    "text", ["import os", "from os import path", "def f():\n    import socket", "p.write_text('')", "open('x')"]
)
def test_io_is_found(text: str) -> None:
    assert len(io_uses("gpus.model", text)) == 1
