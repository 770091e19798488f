import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from jigsaw_triton import resources
from jigsaw_triton.errors import JigsawError
from native import build

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_has_the_folders_beside_the_package() -> None:
    templates = resources.templates_dir()
    assert templates.name == "model_repository_templates"
    assert {"front", "step", "pipeline", "ensemble"} <= {folder.name for folder in templates.iterdir()}
    assert resources.applications_dir().name == "ensembles"


def test_an_incomplete_installation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "jigsaw_triton")
    with pytest.raises(JigsawError, match="model_repository_templates is missing"):
        resources.templates_dir()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Virtual environment with an installed wheel of this checkout. It sees this environment's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        # The flags of `make setup`, so that the objects come from its cache.
        patch.setattr(build, "build_backend", partial(strict, build.build_backend))
        (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    environment = folder / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    # A path in a .pth file is searched last, and .pth files in that path have no effect: not even an editable install.
    (site_packages,) = environment.glob("lib/*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    yield environment


def strict(build_backend: Any, **arguments: Any) -> Any:
    return build_backend(**{**arguments, "strict": True})


def run(environment: Path, cwd: Path, *command: str) -> str:
    """Standard output of a program of the environment, run in `cwd` with no trace of the checkout."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JIGSAW_"))}
    program = [str(environment / "bin" / command[0]), *command[1:]]
    ran = subprocess.run(program, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_wheel_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "python", "-c", "import jigsaw_triton; print(jigsaw_triton.__file__)")
    package = Path(where.strip()).parent
    assert package.is_relative_to(installed)
    assert all((package / "_native" / name).is_file() for name in (build.BACKEND, build.PRELOAD))
    jigsaw_triton = partial(run, installed, tmp_path, "jigsaw-triton")
    listed = jigsaw_triton("init", "--list")
    applications = {path.parent.name for path in (ROOT / "ensembles").glob("*/graph.yaml")}
    assert {name for name in applications if name not in listed} == set()
    jigsaw_triton("init", "app")
    assert "no mistakes" in jigsaw_triton("validate", "app")
    plan = json.loads(jigsaw_triton("plan", "app", "--gpus", "2xcpu", "--demand", "2", "-o", "json"))
    assert plan["slices_used"] > 0
