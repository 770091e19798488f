"""The pages for contributors name files and targets that exist, and the automation runs what they say."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/contributing/*.md")))
MADE = frozenset({".venv/bin/python", "build/site"})
"""Paths that exist only after `make setup` or `make docs`."""


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_the_page_exist(page: str) -> None:
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", (ROOT / page).read_text()))
    wanted = {path for path in named if "NAME" not in path} - MADE
    bases = (ROOT, ROOT / "jigsaw_triton")
    assert sorted(path for path in wanted if not any((base / path).exists() for base in bases)) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_on_the_page_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_every_target_of_make_is_described() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    described = re.findall(r"^\| `make (\S+)`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    # A target that begins with a dot is a step of others.
    assert sorted(described) == sorted(name for name in phony.split() if not name.startswith("."))


def test_ci_runs_the_whole_test_on_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (job,) = load(".github/workflows/ci.yml")["jobs"].values()
    supported = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert job["strategy"]["matrix"]["python"] == supported
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


def test_commit_hooks_run_installed_tools() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_gives_each_field_an_identity(form: str) -> None:
    fields = [field for field in load(f".github/ISSUE_TEMPLATE/{form}.yml")["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
