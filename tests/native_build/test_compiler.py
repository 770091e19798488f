import subprocess
from pathlib import Path

import pytest

from native import compiler as module
from native.compiler import ZIG_REQUIREMENT, BuildError, Compiler, fetch_zig, find_compiler, missing_requirements
from tests.native_build.conftest import write_compiler

ZIG = Compiler(("python", "-m", "ziglang", "c++", "-target", "x86_64-linux-gnu.2.28"), "zig", "0.17.1")


def test_gxx_is_preferred(programs: Path) -> None:
    path = write_compiler(programs / "g++")
    write_compiler(programs / "clang++", gnu="4 2 1", clang="18 1 3")
    assert find_compiler() == Compiler((str(path),), "g++", "13.2.1")


def test_clangxx_is_second_choice(programs: Path) -> None:
    write_compiler(programs / "clang++", gnu="4 2 1", clang="18 1 3")
    assert find_compiler().name == "clang++ 18.1.3"
    assert missing_requirements() == []


def test_cxx_may_contain_arguments(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(programs / "g++")
    path = write_compiler(programs / "c++-14", gnu="14 1 0")
    monkeypatch.setenv("CXX", f"{path} -m64")
    assert find_compiler() == Compiler((str(path), "-m64"), "g++", "14.1.0")


def test_a_compiler_that_is_too_old_is_skipped(programs: Path) -> None:
    write_compiler(programs / "g++", level=201709, gnu="10 2 0")
    write_compiler(programs / "clang++", gnu="4 2 1", clang="18 1 3")
    assert find_compiler().kind == "clang++"


def test_zig_is_the_last_resort(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_zig", lambda: ZIG)
    assert find_compiler() == ZIG
    write_compiler(programs / "g++")
    assert find_compiler().kind == "g++"
    assert find_compiler("zig") == ZIG


def test_the_error_without_a_compiler_gives_advice(programs: Path) -> None:
    with pytest.raises(BuildError) as caught:
        find_compiler()
    for advice in ("No C++20 compiler is installed", "apt-get install g++", "CXX=", f"pip install {ZIG_REQUIREMENT}"):
        assert advice in str(caught.value)
    assert missing_requirements() == [ZIG_REQUIREMENT]


def test_the_error_names_a_compiler_that_is_too_old(programs: Path) -> None:
    write_compiler(programs / "g++", level=201709, gnu="10 2 0")
    with pytest.raises(BuildError, match=r"\(g\+\+ 10\.2\.0\) is too old for C\+\+20"):
        find_compiler()


def test_a_cxx_that_does_not_work_is_an_error(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(BuildError, match="/nowhere/c\\+\\+ does not run"):
        find_compiler()
    assert missing_requirements() == []


def test_a_portable_build_needs_zig_even_if_cxx_is_set(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(programs / "g++")
    monkeypatch.setenv("JIGSAW_COMPILER", "zig")
    monkeypatch.setenv("CXX", "g++")
    assert missing_requirements() == [ZIG_REQUIREMENT]
    with pytest.raises(BuildError, match="zig is not installed"):
        find_compiler()


def test_an_unknown_compiler_choice_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSAW_COMPILER", "icc")
    with pytest.raises(BuildError, match="'icc' is unknown"):
        find_compiler()


def test_the_error_of_a_failed_download_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ERROR: No matching distribution found for ziglang"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(BuildError) as caught:
        fetch_zig()
    assert said in str(caught.value)
    assert "apt-get install g++" in str(caught.value)


def test_the_platform_tag_follows_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert ZIG.platform_tag == "manylinux_2_28_x86_64"
    assert Compiler(("g++",), "g++", "13.2.1").platform_tag == "linux_x86_64"


def test_the_identity_of_zig_does_not_depend_on_its_path() -> None:
    elsewhere = Compiler(("/tmp/python", *ZIG.command[1:]), "zig", "0.17.1")
    assert elsewhere.identity == ZIG.identity
    assert Compiler(("/a/g++",), "g++", "13.2.1").identity != Compiler(("/b/g++",), "g++", "13.2.1").identity


def test_the_installed_compiler_is_found(compiler: Compiler) -> None:
    assert compiler.kind in ("g++", "clang++")
    assert compiler.version.count(".") == 2
