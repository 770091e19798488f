import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler import store
from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, RouteEntry
from jigsaw_triton.errors import InputError
from tests.compiler.samples import compiled
from tests.fakes.graphs import chain, cropping, fan_out


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "user" / "s.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def folder(weights: Path, *, config: bytes = b"config") -> ModelFolder:
    return ModelFolder("m.g1", {"config.pbtxt": config, "1/model.py": b"code", "1/model.onnx": Artifact(weights)})


def content(root: Path) -> Mapping[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def digest(root: Path) -> str:
    return hashlib.sha256(repr(content(root)).encode()).hexdigest()


def test_a_model_is_written_with_its_artifacts(tmp_path: Path, weights: Path) -> None:
    repository = tmp_path / "run" / "repository"
    target = store.write_model(folder(weights), repository)
    assert target == repository / "m.g1"
    assert content(target) == {"config.pbtxt": b"config", "1/model.py": b"code", "1/model.onnx": b"weights"}
    assert (target / "1" / "model.onnx").samefile(weights)
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]


def test_a_symbolic_link_to_an_artifact_is_resolved(tmp_path: Path, weights: Path) -> None:
    link = tmp_path / "user" / "link.onnx"
    link.symlink_to(weights)
    target = store.write_model(folder(link), tmp_path / "repository")
    assert not (target / "1" / "model.onnx").is_symlink()
    assert (target / "1" / "model.onnx").samefile(weights)


def test_an_artifact_of_a_deployment_comes_from_its_copies(tmp_path: Path, weights: Path) -> None:
    copies, model = tmp_path / "copies", folder(Path("f" * 64))
    copies.mkdir()
    (copies / ("f" * 64)).write_bytes(b"deployed")
    target = store.write_model(model, tmp_path / "repository", copies)
    assert (target / "1" / "model.onnx").samefile(copies / ("f" * 64))
    inode = target.stat().st_ino
    assert store.write_model(model, tmp_path / "repository", copies).stat().st_ino == inode
    (copies / ("f" * 64)).unlink()
    with pytest.raises(InputError, match=rf"{'f' * 64}: the file or folder cannot be read"):
        store.write_model(model, tmp_path / "repository", copies)
    assert store.Identities()(Path("f" * 64)) == "f" * 64


def test_an_artifact_is_copied_if_it_cannot_be_linked(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = store.write_model(folder(weights), tmp_path / "repository")
    assert (target / "1" / "model.onnx").read_bytes() == b"weights"
    assert not (target / "1" / "model.onnx").samefile(weights)
    before = (target / "1" / "model.onnx").stat()
    store.write_model(folder(weights), tmp_path / "repository")
    assert (target / "1" / "model.onnx").stat() == before


def test_an_unchanged_folder_is_left_alone(tmp_path: Path, weights: Path) -> None:
    target = store.write_model(folder(weights), tmp_path / "repository")
    (target / "1" / "__pycache__").mkdir()
    (target / "1" / "__pycache__" / "model.pyc").write_bytes(b"bytecode")
    before = [(p, p.stat()) for p in (target, *target.rglob("*"))]
    store.write_model(folder(weights), tmp_path / "repository")
    assert [(p, p.stat()) for p in (target, *target.rglob("*"))] == before


def test_a_changed_folder_is_replaced_whole(tmp_path: Path, weights: Path) -> None:
    target = store.write_model(folder(weights), tmp_path / "repository")
    (target / "stray").write_bytes(b"")
    store.write_model(ModelFolder("m.g1", {"config.pbtxt": b"new"}), tmp_path / "repository")
    assert content(target) == {"config.pbtxt": b"new"}
    weights.unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["repository", "user"]


def test_a_changed_artifact_is_written_again(tmp_path: Path, weights: Path) -> None:
    target = store.write_model(folder(weights), tmp_path / "repository")
    weights.unlink()
    weights.write_bytes(b"newer!!")
    store.write_model(folder(weights), tmp_path / "repository")
    assert (target / "1" / "model.onnx").read_bytes() == b"newer!!"


def test_the_error_names_a_missing_artifact_and_nothing_changes(tmp_path: Path, weights: Path) -> None:
    target = store.write_model(folder(weights), tmp_path / "repository")
    missing = tmp_path / "user" / "gone.onnx"
    unreadable = r"gone\.onnx: the file or folder cannot be read \(No such file.*put the file back"
    with pytest.raises(InputError, match=unreadable):
        store.write_model(folder(missing, config=b"new"), tmp_path / "repository")
    assert content(target)["config.pbtxt"] == b"config"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["repository", "user"]


@pytest.mark.parametrize(("code", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "choose a folder")])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    write = Path.write_bytes

    def fill_up(self: Path, data: bytes) -> int:
        if self.name == "model.py":
            raise OSError(code, os.strerror(code))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(InputError, match=rf"m\.g1: the file or folder cannot be written .*{remedy}") as caught:
        store.write_model(folder(weights), tmp_path / "repository")
    assert caught.value.exit_code == 2
    assert content(tmp_path) == {"user/s.onnx": b"weights"}
    with pytest.raises(InputError, match="the file or folder cannot be written"):
        store.write_bundle(compiled(chain()), tmp_path / "out")
    assert content(tmp_path) == {"user/s.onnx": b"weights"}


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "repository").write_text("")
    with pytest.raises(InputError, match=r"m\.g1: the file or folder cannot be written"):
        store.write_model(folder(weights), tmp_path / "repository")


def test_removing_a_model_may_be_repeated(tmp_path: Path, weights: Path) -> None:
    target = store.write_model(folder(weights), tmp_path / "repository")
    store.remove_model("m.g1", tmp_path / "repository")
    store.remove_model("m.g1", tmp_path / "repository")
    assert not target.exists()
    assert weights.read_bytes() == b"weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["repository", "user"]


def test_a_route_is_replaced(tmp_path: Path) -> None:
    for batch in (4, 8):
        path = store.write_route(tmp_path, "g.t.g1", [RouteEntry("w", "m", batch, 2)])
        assert path == tmp_path / "routes" / "g.t.g1.json"
        assert [entry["batch"] for entry in json.loads(path.read_text())["workers"]] == [batch]
    assert [p.name for p in path.parent.iterdir()] == ["g.t.g1.json"]


def test_a_bundle_has_models_routes_and_a_manifest(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    bundle = compiled(fan_out())
    store.write_bundle(bundle, out)
    assert sorted(content(out)) == [
        "bundle.json",
        "gateway/fan_out/1/.keep",
        "gateway/fan_out/config.pbtxt",
        "routes/fan_out.classify.g3.json",
        "routes/fan_out.detect.g3.json",
        "workers/n-0-1g-0/fan_out.detect.v0.g3/1/model.py",
        "workers/n-0-1g-0/fan_out.detect.v0.g3/config.pbtxt",
        "workers/n-0-1g-1/fan_out.classify.v0.g3/1/model.py",
        "workers/n-0-1g-1/fan_out.classify.v0.g3/config.pbtxt",
    ]
    manifest = json.loads((out / "bundle.json").read_text())
    assert (manifest["version"], manifest["generation"]) == (1, 3)
    assert manifest["graphs"]["fan_out"] == {
        "target": "graph",
        "front": "fan_out",
        "pipeline": None,
        "tasks": {"detect": "fan_out.detect.g3", "classify": "fan_out.classify.g3"},
    }
    worker = manifest["workers"]["n-0-1g-1"]
    assert (worker["node"], worker["gpu"], worker["slice"], worker["start"]) == ("n", 0, "1g", 1)
    assert worker["models"]["fan_out.classify.v0.g3"]["batch"] == 4


def test_a_bundle_has_copies_of_artifacts_each_content_once(tmp_path: Path, weights: Path) -> None:
    link = weights.with_name("link.onnx")
    link.symlink_to(weights)
    made = compiled(fan_out())
    workers = {
        name: replace(worker, models=tuple(replace(m, folder=folder(link)) for m in worker.models))
        for name, worker in made.workers.items()
    }
    store.write_bundle(replace(made, workers=workers), tmp_path / "out")
    with weights.open("r+b") as file:
        file.write(b"changed")
    first, second = (tmp_path / "out").glob("workers/*/m.g1/1/model.onnx")
    assert first.read_bytes() == b"weights" and not first.is_symlink()
    assert first.samefile(second)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "user"]
    weights.unlink()
    with pytest.raises(InputError, match=r"link\.onnx: the file or folder cannot be read \(No such file"):
        store.write_bundle(replace(made, workers=workers), tmp_path / "out")
    assert first.read_bytes() == b"weights"


def test_a_bundle_of_one_task_fronts_and_steps(tmp_path: Path) -> None:
    store.write_bundle(compiled(fan_out(), target="ensemble"), tmp_path / "ensemble")
    gateway = tmp_path / "ensemble" / "gateway"
    assert sorted(content(gateway)) == [
        f"{model}/{file}"
        for model in ("fan_out.classify.g3", "fan_out.detect.g3", "fan_out")
        for file in ("1/.keep", "config.pbtxt")
    ]
    store.write_bundle(compiled(cropping()), tmp_path / "steps")
    assert sorted(content(tmp_path / "steps" / "workers" / "steps-cropping")) == [
        f"cropping.crop.step.g3/{file}" for file in ("1/model.py", "1/step.py", "config.pbtxt")
    ]
    manifest = json.loads((tmp_path / "steps" / "bundle.json").read_text())
    assert manifest["workers"]["steps-cropping"]["slice"] is None


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store.write_bundle(compiled(fan_out()), tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_an_earlier_bundle_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    store.write_bundle(compiled(fan_out()), out)
    store.write_bundle(compiled(chain()), out)
    assert sorted(p.name for p in (out / "gateway").iterdir()) == ["chain"]
    assert sorted(p.name for p in (out / "routes").iterdir()) == ["chain.t0.g3.json", "chain.t1.g3.json"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="mine: the folder holds something else; choose a new or an empty folder"):
        store.write_bundle(compiled(chain()), mine)
    assert content(mine) == {"thesis.tex": b"dear"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


def test_identities_follow_content(tmp_path: Path, weights: Path) -> None:
    identities = store.Identities()
    first = identities(weights)
    assert first == hashlib.sha256(b"weights").hexdigest()
    assert identities(weights) == first
    weights.write_bytes(b"other weights")
    assert identities(weights) == hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(InputError, match=r"gone: the file or folder cannot be read \(No such file"):
        identities(tmp_path / "gone")
