"""The public names of the package, and what importing it costs."""

import subprocess
import sys

import pytest

import jigsaw_triton
from jigsaw_triton import errors

HEAVY = (
    "aiohttp",
    "click",
    "highspy",
    "networkx",
    "numpy",
    "pulp",
    "pydantic",
    "rich",
    "torch",
    "tritonclient",
    "yaml",
)


@pytest.mark.parametrize("name", jigsaw_triton.__all__)
def test_every_public_name_exists(name: str) -> None:
    value = getattr(jigsaw_triton, name)
    assert value.__module__.startswith("jigsaw_triton.")
    assert value.__doc__


def test_public_names_are_sorted_and_complete() -> None:
    assert jigsaw_triton.__all__ == sorted(set(jigsaw_triton.__all__))
    assert dir(jigsaw_triton) == sorted([*jigsaw_triton.__all__, "__version__"])
    namespace: dict[str, object] = {}
    exec("from jigsaw_triton import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(jigsaw_triton.__all__)


def test_every_error_is_public() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found <= set(jigsaw_triton.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'jigsaw_triton' has no attribute 'palette'"):
        jigsaw_triton.palette  # noqa: B018


def imported_by(code: str) -> set[str]:
    """Heavy modules that a fresh interpreter has imported after it ran some code."""
    command = f"import sys\n{code}\nprint(*(set({HEAVY}) & sys.modules.keys()))"
    return set(
        subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_package_imports_no_heavy_module() -> None:
    assert imported_by("import jigsaw_triton") == set()


def test_watching_a_deployment_imports_no_heavy_module() -> None:
    assert imported_by("import jigsaw_triton as jt\njt.Deployment('/nowhere').find_status()") == set()


def test_the_commands_that_watch_a_deployment_import_no_planner() -> None:
    code = "from importlib import import_module\nfor name in ('status', 'events', 'logs', 'down'):\n"
    code += "    import_module(f'jigsaw_triton.cli.commands.{name}')"
    assert imported_by(code) <= {"click", "rich"}
