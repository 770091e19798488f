"""Dependencies that pyproject.toml declares, and contents of the archives built from it."""

import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder

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
    # The requirement jigsaw-triton[...] in an extra stands for another extra.
    assert names(extras[package]) - {"jigsaw-triton"} == {package}
    assert [name for name, requirements in extras.items() if package in names(requirements)] == [package]


def test_the_applications_bring_every_runner_package(project: dict[str, Any]) -> None:
    assert f"jigsaw-triton[{','.join(RUNNER_PACKAGES)}]" in project["optional-dependencies"]["apps"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths of the files in a source distribution, relative to its top folder."""
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")))
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.parametrize(
    "path",
    [
        ".ci/run",
        ".clang-format",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "PKG-INFO",
        "README.md",
        "benchmarks/graphs/traffic/graph.yaml",
        "console/package-lock.json",
        "console/src/main.tsx",
        "demo/__main__.py",
        "docs/reference/files.md",
        "ensembles/docread/golden/page.npy",
        "ensembles/traffic/profiles.csv",
        "ensembles/traffic-cpu/golden/scene.npy",
        "hatch_build.py",
        "jigsaw_triton/cli/commands/skeleton/graph.yaml",
        "jigsaw_triton/py.typed",
        "jigsaw_triton/servers/edge/edge.lua",
        "jigsaw_triton/servers/transport/node.lua",
        "launch/Dockerfile",
        "model_repository_templates/front/config.pbtxt",
        "native/core/flow.h",
        "pyproject.toml",
        "tests/compiler/golden/bls/bls.pbtxt",
        "tests/fakes/nvml/nvml.c",
        "tests/test_packaging.py",
    ],
)
def test_the_sdist_contains_all_that_make_test_needs(sdist: set[str], path: str) -> None:
    assert path in sdist


def test_the_sdist_contains_every_tracked_file(sdist: set[str]) -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    assert sorted({path for path in listed.stdout.split("\0") if path} - sdist) == []


def test_the_sdist_contains_nothing_that_is_built_or_fetched(sdist: set[str]) -> None:
    assert [path for path in sdist if path.endswith((".so", ".pyc", ".onnx", ".pt", ".npz"))] == []
    built = (".venv/", "build/", "jigsaw_triton/_native/", "jigsaw_triton/console/assets/")
    assert [path for path in sdist if path.startswith(built) or "node_modules" in path] == []


@pytest.mark.parametrize("wheels", [("jigsaw_triton-1.whl",), ("jigsaw_triton-1.whl", "jigsaw_triton-2.whl")])
def test_the_image_is_built_from_one_wheel(tmp_path: Path, wheels: tuple[str, ...]) -> None:
    text = (ROOT / "launch" / "Dockerfile").read_text()
    found = re.search(r"^RUN (set --(?:.*\\\n)+.*)$", text, re.MULTILINE)
    assert found is not None
    script = found[1]
    for wheel in wheels:
        (tmp_path / wheel).touch()
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/opt/jigsaw-triton/bin/pip", "echo")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    if len(wheels) == 1:
        assert ran.returncode == 0
        assert ran.stdout.endswith(f"{tmp_path}/{wheels[0]}[ray]\n")
    else:
        assert ran.returncode == 1
        assert "dist has 2 wheels; choose one" in ran.stderr
