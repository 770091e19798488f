import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from jigsaw_triton.compiler.bundle import Artifact, Bundle, ModelFolder
from jigsaw_triton.controller.fleet.space import check_space
from jigsaw_triton.errors import InputError
from tests.controller.worlds import bundle, worker

CONFIG = b'name: "m"\nbackend: "python"\n'
MIB = 2**20


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def served(model: Path, *places: str, config: bytes = CONFIG, instances: int = 3) -> Bundle:
    """A bundle with one model of this file on each worker, with so many instances."""
    workers = []
    for place in places:
        made = worker(place, ("t0", "a"))
        files: dict[str, bytes | Artifact] = {"config.pbtxt": config, "1/model.bin": Artifact(model)}
        folder = ModelFolder(made.models[0].name, files)
        workers.append(replace(made, models=(replace(made.models[0], folder=folder, instances=instances),)))
    return bundle(1, workers)


def free(monkeypatch: pytest.MonkeyPatch, **mib: float) -> None:
    """Sets the free space of the folders with these names."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(mib.get(Path(path).name, 1000) * MIB)))


def test_logs_and_files_of_new_workers_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(bytes(8 * MIB))
    # Models need no space, because repositories contain links to them.
    two = served(model, "0/1g@0", "0/1g@1")
    free(monkeypatch, **{tmp_path.name: 3})
    check_space(two, None, tmp_path)
    free(monkeypatch, **{tmp_path.name: 2})
    with pytest.raises(InputError, match=r"need 2\.\d+ MiB of disk, but 2 MiB are free") as caught:
        check_space(two, None, tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "--state" in caught.value.hint
    # One of the workers serves already.
    check_space(two, served(model, "0/1g@0"), tmp_path)


def test_each_process_of_a_python_model_needs_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.bin"
    model.touch()
    free(monkeypatch, shm=5)
    two = served(model, "0/1g@0", "0/1g@1")
    with pytest.raises(
        InputError, match="the 6 new processes of Python models need 6 MiB of shared memory, but 5 MiB are free"
    ) as caught:
        check_space(two, None, tmp_path)
    assert caught.value.where == "/dev/shm"
    assert "--shm-size" in caught.value.hint
    check_space(two, served(model, "0/1g@0"), tmp_path)
    check_space(served(model, "0/1g@0", "0/1g@1", config=b'backend: "onnxruntime"'), None, tmp_path)


def test_models_that_stand_by_need_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.bin"
    model.touch()
    made = served(model, "0/1g@0")
    lighter = {
        name: tuple(replace(m, folder=replace(m.folder, name=f"{m.name}-lighter")) for m in w.models)
        for name, w in made.workers.items()
    }
    beside = {name: replace(w, standby=lighter[name]) for name, w in made.workers.items()}
    free(monkeypatch, shm=5)
    check_space(made, None, tmp_path)
    with pytest.raises(InputError, match="the 6 new processes"):
        check_space(replace(made, workers=beside), None, tmp_path)


def test_workers_of_other_machines_need_no_space_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.bin"
    model.touch()
    made = served(model, "0/1g@0", "0/1g@1")
    free(monkeypatch, shm=1, **{tmp_path.name: 0.5})
    with pytest.raises(InputError):
        check_space(made, None, tmp_path)
    check_space(replace(made, workers={n: replace(w, remote=True) for n, w in made.workers.items()}), None, tmp_path)
