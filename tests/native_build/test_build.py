import ctypes
import multiprocessing
from pathlib import Path

import pytest

from jigsaw_triton import __version__
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.backend import Api, BuildInfo, build_info
from native import build
from native.build import build_backend, build_testing, install, package_version
from native.compiler import BuildError, Compiler
from native.elf import read_symbols
from tests.native_build.conftest import write_sources

pytestmark = pytest.mark.slow


def object_names(folder: Path) -> dict[str, str]:
    """Name of the object file of each source."""
    names = [path.name for path in folder.glob("*/objects/*.o")]
    found = {name.rpartition("-")[0]: name for name in names}
    assert len(found) == len(names)
    return found


def test_only_entry_points_are_exported_and_triton_stays_undefined(
    sources: Path, tmp_path: Path, compiler: Compiler
) -> None:
    library, preload = build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler)
    assert read_symbols(preload).exported == {"fchmod"}
    symbols = read_symbols(library)
    assert symbols.exported == {"TRITONBACKEND_Initialize", "jigsaw_build_info"}
    # The server defines the function; the backend recognises a server without it by its version.
    assert b"TRITONSERVER_LogLevel" in library.read_bytes()
    assert not any(name.startswith("TRITON") for name in symbols.needed)
    assert not any(name.startswith("_ZNSt") for name in symbols.needed)


def test_an_undefined_symbol_outside_triton_is_an_error(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    (sources / "core" / "sum.cc").write_text("int Another() { return 1; }\n")
    with pytest.raises(BuildError, match="cannot be linked"):
        build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler)


def test_the_library_says_how_it_was_built(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    library, _ = build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler)
    assert build_info(library) == BuildInfo(__version__, compiler.name, Api(1, 19))


def test_a_library_without_build_info_is_rejected(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    (sources / "triton" / "backend.cc").write_text('extern "C" int TRITONBACKEND_Initialize() { return 0; }\n')
    library, _ = build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler)
    with pytest.raises(ServerError, match="undefined symbol: jigsaw_build_info"):
        build_info(library)


def test_the_build_is_reproducible_in_any_folder(tmp_path: Path, compiler: Compiler) -> None:
    def contents(folder: Path) -> list[bytes]:
        sources, out = write_sources(folder / "sources"), folder / "out"
        return [library.read_bytes() for library in build_backend(sources=sources, folder=out, compiler=compiler)]

    built = contents(tmp_path / "a")
    assert built == contents(tmp_path / "another")
    assert not any(str(tmp_path).encode() in content for content in built)


def test_only_changed_sources_are_recompiled(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    folder = tmp_path / "out"
    library, _ = build_backend(sources=sources, folder=folder, compiler=compiler)
    first, linked = object_names(folder), library.stat().st_mtime_ns
    assert build_backend(sources=sources, folder=folder, compiler=compiler)[0] == library
    assert (object_names(folder), library.stat().st_mtime_ns) == (first, linked)

    (sources / "core" / "other.cc").write_text("int Other() { return 2; }\n")
    build_backend(sources=sources, folder=folder, compiler=compiler)
    second = object_names(folder)
    assert {source for source, name in second.items() if name != first[source]} == {"core.other"}
    assert library.stat().st_mtime_ns != linked

    (sources / "core" / "sum.h").write_text("#pragma once\nint Sum(int first, int second);\n")
    build_backend(sources=sources, folder=folder, compiler=compiler)
    third = object_names(folder)
    assert {source for source, name in third.items() if name != second[source]} == {"core.sum", "triton.backend"}


def test_a_removed_source_leaves_the_library(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    folder = tmp_path / "out"
    (sources / "triton" / "more.cc").write_text('extern "C" int TRITONBACKEND_Finalize() { return 0; }\n')
    assert "TRITONBACKEND_Finalize" in read_symbols(build_backend(sources=sources, folder=folder)[0]).exported
    (sources / "triton" / "more.cc").unlink()
    assert "TRITONBACKEND_Finalize" not in read_symbols(build_backend(sources=sources, folder=folder)[0]).exported


def test_the_testing_library_loads_without_triton(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    library = build_testing(sources=sources, folder=tmp_path / "out", compiler=compiler)
    assert ctypes.CDLL(str(library)).testing_sum(2, 3) == 5


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_environment_chooses_the_sanitizer(
    sources: Path, tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, sanitizer: str
) -> None:
    monkeypatch.setenv("JIGSAW_SANITIZER", sanitizer)
    library = build_testing(sources=sources, folder=tmp_path / "out", compiler=compiler)
    assert any(name.startswith(f"__{sanitizer[0]}san_") for name in read_symbols(library).needed)


def test_an_unknown_sanitizer_is_rejected(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSAW_SANITIZER", "memory")
    with pytest.raises(BuildError, match="'memory' is unknown"):
        build_testing(sources=sources)


def test_every_file_that_does_not_compile_is_reported(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    (sources / "core" / "other.cc").write_text("int Other() { return nothing; }\n")
    (sources / "core" / "sum.cc").write_text("int Sum(int a, int b) { return a; }\n")
    with pytest.raises(BuildError) as caught:
        build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler)
    assert "core/other.cc does not compile" in str(caught.value)
    # The unused parameter causes a warning, which is an error in a strict build.
    assert "core/sum.cc does not compile" in str(caught.value)
    (sources / "core" / "other.cc").write_text("int Other() { return 1; }\n")
    library, _ = build_backend(sources=sources, folder=tmp_path / "out", compiler=compiler, strict=False)
    assert library.is_file()


def test_a_folder_without_sources_is_an_error(tmp_path: Path, compiler: Compiler) -> None:
    (tmp_path / "core").mkdir()
    with pytest.raises(BuildError, match="There are no C\\+\\+ sources in"):
        build_backend(sources=tmp_path, folder=tmp_path / "out", compiler=compiler)


def _build(sources: Path, folder: Path, compiler: Compiler) -> None:
    build_backend(sources=sources, folder=folder, compiler=compiler)


def test_two_processes_may_build_concurrently(sources: Path, tmp_path: Path, compiler: Compiler) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build, args=(sources, tmp_path / "out", compiler)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_install_replaces_the_file_instead_of_overwriting_it(tmp_path: Path) -> None:
    library, target = tmp_path / "new.so", tmp_path / "_native" / "libtriton_jigsaw.so"
    library.write_bytes(b"one")
    assert install(library, target)
    assert not install(library, target)
    with target.open("rb") as mapped:
        library.write_bytes(b"two")
        assert install(library, target)
        assert mapped.read() == b"one"
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_version_is_that_of_the_package() -> None:
    assert package_version() == __version__


def test_the_command_line_prints_the_error(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main([]) == 1
    assert "No C++20 compiler is installed" in capsys.readouterr().err
