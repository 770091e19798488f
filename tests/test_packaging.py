"""Dependencies that pyproject.toml declares, and contents of the archives built from it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.servers.runner_packages import RUNNER_PACKAGES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~;\s]", requirement, maxsplit=1)[0] for requirement in requirements}


@pytest.mark.parametrize("package", RUNNER_PACKAGES)
def test_a_runner_package_is_an_extra_and_no_dependency(project: dict[str, Any], package: str) -> None:
    assert package not in names(project["dependencies"])
    extras = project["optional-dependencies"]
    assert names(extras[package]) == {package}
    assert [name for name, requirements in extras.items() if package in names(requirements)] == [package]


def test_the_applications_bring_every_runner_package(project: dict[str, Any]) -> None:
    assert f"jigsaw-triton[{','.join(RUNNER_PACKAGES)}]" in project["optional-dependencies"]["apps"]
