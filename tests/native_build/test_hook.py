from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.config import BuilderConfig
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from hatch_build import NativeBuildHook
from native import build
from native.compiler import ZIG_REQUIREMENT, Compiler
from tests.native_build.conftest import write_compiler, write_sources


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    write_sources(folder / "native")
    return folder


def hook(root: Path) -> NativeBuildHook:
    manager = PluginManager()
    metadata = ProjectMetadata(str(root), manager, {"project": {"name": "x", "version": "1"}})
    config: BuilderConfig = None  # type: ignore[assignment]
    return NativeBuildHook(str(root), {}, config, metadata, str(root / "dist"), "wheel")


def built(root: Path, version: str) -> dict[str, Any]:
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "tag": None}
    hook(root).initialize(version, data)
    return data


def test_a_wheel_contains_the_library_and_a_platform_tag(root: Path, compiler: Compiler) -> None:
    data = built(root, "standard")
    ((source, place),) = data["force_include"].items()
    assert Path(source).is_relative_to(root / "build")
    assert place == "jigsaw_triton/_native/libtriton_jigsaw.so"
    assert (data["pure_python"], data["tag"]) == (False, f"py3-none-{compiler.platform_tag}")
    assert not (root / build.PLACE).exists()


def test_an_editable_install_puts_the_library_into_the_checkout(root: Path, compiler: Compiler) -> None:
    data = built(root, "editable")
    assert data["force_include"] == {}
    assert (root / build.PLACE).is_file()


def test_zig_is_required_only_without_a_compiler(root: Path, programs: Path) -> None:
    assert hook(root).dependencies() == [ZIG_REQUIREMENT]
    write_compiler(programs / "g++")
    assert hook(root).dependencies() == []
