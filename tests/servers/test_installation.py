import os
import platform
import sys
import sysconfig
from pathlib import Path

import pytest

from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.servers import backend, installation, interpreter
from jigsaw_triton.servers.installation import (
    find_installation,
    require_compiled_backend,
    require_packaged_platform,
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Provides a root folder for tritonservers, with none on PATH or in /opt."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(installation, "_OPT", tmp_path / "opt")
    monkeypatch.setattr(backend, "LIBRARY", tmp_path / "_native" / "libtriton_jigsaw.so")
    return tmp_path


def install(root: Path, *backends: str, python: str = interpreter.VERSION) -> Path:
    binary = root / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    for name in backends:
        folder = root / "backends" / name
        folder.mkdir(parents=True)
        (folder / f"libtriton_{name}.so").touch()
        if name == "python":
            (folder / "triton_python_backend_stub").write_bytes(b"\x7fELF..libpython" + python.encode() + b".so.1.0\0")
    return binary


def build(content: bytes) -> None:
    """Puts libraries with this content where the package looks for them."""
    backend.LIBRARY.parent.mkdir(exist_ok=True)
    backend.LIBRARY.write_bytes(content)
    (backend.LIBRARY.parent / "libjigsaw_private.so").write_bytes(b"private " + content)


def test_a_server_on_path_is_preferred(machine: Path) -> None:
    install(machine / "opt", "python")
    binary = install(machine / "own", "python", "onnxruntime")
    (machine / "own" / "TRITON_VERSION").write_text("2.60.0\n")
    (machine / "bin").mkdir()
    (machine / "bin" / "tritonserver").symlink_to(binary)
    found = find_installation()
    assert (found.origin, found.binary, found.version) == ("path", binary, "2.60.0")
    assert found.backends == {"python", "onnxruntime"}
    assert found.backend_dir == machine / "own" / "backends"


def test_a_server_in_opt_is_found_next(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_SERVER_VERSION", "2.51.0")
    install(machine / "opt", "python")
    found = find_installation()
    assert (found.origin, found.version) == ("opt", "2.51.0")


def test_the_compiled_backend_is_merged_with_those_of_the_server(machine: Path, cache: Path) -> None:
    install(machine / "opt", "python", "onnxruntime")
    build(b"one")
    found = require_compiled_backend(find_installation())
    assert found.backends == {"python", "onnxruntime", "jigsaw"}
    assert found.backend_dir.is_relative_to(cache)
    assert (found.backend_dir / "jigsaw" / "libtriton_jigsaw.so").read_bytes() == b"one"
    preload = found.backend_dir / "jigsaw" / "libjigsaw_private.so"
    assert preload.read_bytes() == b"private one"
    assert found.env["LD_PRELOAD"] == str(preload)
    assert (found.backend_dir / "python").resolve() == machine / "opt" / "backends" / "python"
    assert (found.backend_dir / "onnxruntime" / "libtriton_onnxruntime.so").exists()
    assert find_installation().backend_dir == found.backend_dir


def test_an_upgrade_keeps_the_library_of_a_running_deployment(machine: Path, cache: Path) -> None:
    install(machine / "opt", "python")
    build(b"one")
    old = find_installation().backend_dir
    build(b"two")
    new = find_installation().backend_dir
    contents = [(folder / "jigsaw" / "libtriton_jigsaw.so").read_bytes() for folder in (old, new)]
    assert contents == [b"one", b"two"]


def test_our_library_is_preloaded_before_those_of_the_user(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine / "opt", "python")
    build(b"one")
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so")
    first, second = find_installation().env["LD_PRELOAD"].split(":")
    assert (Path(first).name, second) == ("libjigsaw_private.so", "/usr/lib/libtcmalloc.so")


@pytest.mark.parametrize("built", ["libtriton_jigsaw.so", "libjigsaw_private.so"])
def test_a_server_cannot_start_without_both_libraries(machine: Path, built: str) -> None:
    install(machine / "opt", "python", "jigsaw")
    backend.LIBRARY.parent.mkdir()
    (backend.LIBRARY.parent / built).touch()
    found = find_installation()
    assert found.backends == {"python"}
    with pytest.raises(MissingDependencyError, match="not built") as caught:
        require_compiled_backend(found)
    assert caught.value.where == str(backend.LIBRARY)


def test_a_server_without_the_python_backend_is_refused(machine: Path) -> None:
    install(machine / "opt", "onnxruntime")
    with pytest.raises(MissingDependencyError, match="no Python backend"):
        find_installation()


def test_a_stub_for_another_python_is_refused(machine: Path) -> None:
    install(machine / "opt", "python", python="3.10")
    with pytest.raises(MissingDependencyError, match=r"built for Python 3\.10, not") as caught:
        find_installation()
    assert "with Python 3.10" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("system", "Darwin", "but this is Darwin on"),
        ("machine", "aarch64", "on aarch64"),
        ("libc_ver", ("glibc", "2.31"), "glibc 2.31"),
        ("libc_ver", ("", ""), "another C library"),
    ],
)
def test_the_packaged_server_refuses_unsupported_machines(
    name: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, name, lambda: value)
    with pytest.raises(MissingDependencyError, match=message):
        require_packaged_platform()


def test_the_packaged_server_refuses_unsupported_python_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "VERSION", "3.13")
    with pytest.raises(MissingDependencyError, match=r"needs Python 3\.11 or 3\.12, not 3\.13"):
        require_packaged_platform()


def test_a_python_without_a_shared_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: None)
    with pytest.raises(MissingDependencyError) as caught:
        require_packaged_platform()
    assert f"apt-get install libpython{interpreter.VERSION}" in caught.value.hint


def test_the_folder_of_the_interpreter_is_a_virtual_environment(cache: Path) -> None:
    folder = interpreter.prepare()
    assert folder.is_relative_to(cache)
    library = folder / "lib" / f"libpython{interpreter.VERSION}.so.1.0"
    assert library.resolve() == interpreter.shared_library().resolve()
    assert os.access(folder / "bin" / "python3", os.X_OK)
    assert "include-system-site-packages = false" in (folder / "pyvenv.cfg").read_text()
    before = folder.stat().st_mtime_ns
    assert interpreter.prepare() == folder
    assert folder.stat().st_mtime_ns == before


def test_the_folder_of_the_interpreter_comes_first_in_the_environment() -> None:
    env = interpreter.environment(Path("/f"), {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/cuda"})
    assert (env["PATH"], env["LD_LIBRARY_PATH"]) == ("/f/bin:/usr/bin", "/f/lib:/cuda")
    assert interpreter.environment(Path("/f"), {"PATH": "/b"})["LD_LIBRARY_PATH"] == "/f/lib"


def test_a_server_knows_the_folders_of_the_packages() -> None:
    folders = interpreter.environment(Path("/f"), {})["JIGSAW_PACKAGES"].split(":")
    assert str(Path(pytest.__file__).parents[1]) in folders
    assert all(Path(folder).is_dir() for folder in folders)
