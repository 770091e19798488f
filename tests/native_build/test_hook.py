import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import hatch_build
from native import build
from native.compiler import ZIG_REQUIREMENT, Compiler
from tests.build_hook import hook, wheel_data
from tests.native_build.conftest import write_compiler, write_sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    write_sources(folder / "native")
    return folder


def test_a_wheel_contains_the_libraries_and_a_platform_tag(root: Path, compiler: Compiler) -> None:
    data = wheel_data(root, "standard")
    assert all(Path(source).is_relative_to(root / "build") for source in data["force_include"])
    folder = "jigsaw_triton/_native"
    assert [*data["force_include"].values()] == [f"{folder}/libtriton_jigsaw.so", f"{folder}/libjigsaw_private.so"]
    assert (data["pure_python"], data["tag"]) == (False, f"py3-none-{compiler.platform_tag}")
    assert not (root / build.PLACE).exists()


def test_an_editable_install_puts_the_libraries_into_the_checkout(root: Path, compiler: Compiler) -> None:
    data = wheel_data(root, "editable")
    assert data["force_include"] == {}
    names = {path.name for path in (root / build.PLACE).iterdir()}
    assert names == {"libtriton_jigsaw.so", "libjigsaw_private.so"}


def test_zig_is_required_only_without_a_compiler(root: Path, programs: Path) -> None:
    assert hook(root).dependencies() == [ZIG_REQUIREMENT]
    write_compiler(programs / "g++")
    assert hook(root).dependencies() == []


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 13, 0)])
def test_an_unsupported_python_is_refused_before_anything_is_built(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=rf"needs Python 3\.11 or 3\.12, but .* is Python 3\.{version[1]}\. Create "):
        runpy.run_path(hatch_build.__file__)


def test_the_versions_that_pip_may_install_for_are_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads(Path(hatch_build.__file__).with_name("pyproject.toml").read_text())["project"]
    for minor in range(8, 16):
        monkeypatch.setattr(sys, "version_info", (3, minor, 1))
        refused = False
        try:
            runpy.run_path(hatch_build.__file__)
        except SystemExit:
            refused = True
        assert refused == (f"3.{minor}.1" not in SpecifierSet(project["requires-python"]))
