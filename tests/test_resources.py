from pathlib import Path

import pytest

from jigsaw_triton import resources
from jigsaw_triton.errors import JigsawError


def test_a_checkout_has_the_folders_beside_the_package() -> None:
    templates = resources.templates_dir()
    assert templates.name == "model_repository_templates"
    assert {"front", "step", "pipeline", "ensemble"} <= {folder.name for folder in templates.iterdir()}
    assert resources.applications_dir().name == "ensembles"


def test_a_wheel_has_the_folders_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "jigsaw_triton"
    for folder in (package / "_share" / "ensembles", tmp_path / "ensembles"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.applications_dir() == package / "_share" / "ensembles"


def test_an_incomplete_installation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "jigsaw_triton")
    with pytest.raises(JigsawError, match="model_repository_templates is missing"):
        resources.templates_dir()
