"""Copies of deployed files: they stay as they were deployed, each content once, until no generation needs them."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from jigsaw_triton.compiler import store
from jigsaw_triton.controller.core.generation import ChangeRequest, Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence import model_files
from jigsaw_triton.controller.persistence.contents import KEPT_S
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.controller.persistence.journal import RESTORABLE, Journal
from jigsaw_triton.controller.persistence.model_files import ModelFiles, names
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.file_copy import copy_file
from jigsaw_triton.graph.model import TaskGraph
from tests.controller.worlds import GRAPH, ONE, generation, wanted


def age(kept: ModelFiles) -> None:
    """Makes all copies appear unused for long."""
    unused_s = time.time() - 2 * KEPT_S
    for path in kept.folder.iterdir():
        os.utime(path, (unused_s, unused_s))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def graph(*files: Path) -> TaskGraph:
    """Returns a graph of which each variant has these files, and whose sample request is the first one."""
    artifacts = {path.name: path for path in files}
    tasks = {
        name: replace(task, variants=tuple(replace(v, artifacts=artifacts) for v in task.variants))
        for name, task in GRAPH.tasks.items()
    }
    return replace(GRAPH, tasks=tasks, samples={"X": files[0]})


@pytest.fixture
def kept(tmp_path: Path) -> ModelFiles:
    return ModelFiles(tmp_path / "contents")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_text("first")
    return path


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were copied, as on a file system whose files cannot share blocks."""
    found: list[Path] = []

    def copy(source: Path, target: Path, check: Callable[[], None]) -> None:
        found.append(source)
        copy_file(source, target, check)

    monkeypatch.setattr(model_files, "copy_file", copy)
    monkeypatch.setattr(model_files, "clone_file", lambda *_: False)
    return found


def content(kept: ModelFiles) -> dict[str, str]:
    return {path.name: path.read_text() for path in kept.folder.iterdir()}


def test_a_deployed_graph_names_copies_which_stay_when_its_files_are_edited(kept: ModelFiles, model: Path) -> None:
    deployed = kept.keep({"app": graph(model)})["app"]
    copy = Path(sha256("first"))
    assert {path for task in deployed.tasks.values() for v in task.variants for path in v.artifacts.values()} == {copy}
    assert deployed.samples == {"X": copy}
    assert names({"app": deployed}) == {copy.name}
    with model.open("r+") as file:
        file.write("SECOND")
    model.unlink()
    assert content(kept) == {copy.name: "first"}
    assert stat.S_IMODE((kept.folder / copy).stat().st_mode) == 0o400
    assert kept.size_bytes == 5
    # A graph that stays while another joins names copies already.
    assert kept.keep({"app": deployed}) == {"app": deployed}
    assert not kept.lacks({"app": deployed})
    (kept.folder / copy).unlink()
    assert kept.lacks({"app": deployed})


def test_a_content_is_copied_once_and_a_file_read_once(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def digest(path: Path, _: Callable[[], None]) -> str:
        read.append(path)
        return sha256(path.read_text())

    monkeypatch.setattr(store, "sha256_of", digest)
    other = model.with_name("other.onnx")
    other.write_text("first")
    kept.add({model, other})
    kept.add({model, other})
    assert copies == [other] or copies == [model]
    assert read == [model, other]
    other.write_text("second")
    assert kept.add({model, other}) == {model: Path(sha256("first")), other: Path(sha256("second"))}
    assert read == [model, other, other]
    assert copies[1:] == [other]


def test_a_copy_shares_the_blocks_of_its_file_where_it_can(
    kept: ModelFiles, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(copy: IO[bytes], call: int, original: int) -> None:
        assert call == 0x40049409
        copy.write(os.pread(original, 100, 0))

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    kept.add({model})
    assert content(kept) == {sha256("first"): "first"}


def test_a_missing_file_is_named_and_leaves_no_copy(kept: ModelFiles, model: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.onnx: the file or folder cannot be read"):
        kept.add({model, model.with_name("missing.onnx")})
    assert content(kept) == {}


def test_a_file_that_changes_while_it_is_copied_is_named_and_leaves_no_copy(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(source: Path, target: Path, check: Callable[[], None]) -> None:
        copy_file(source, target, check)
        source.write_text("changed")

    monkeypatch.setattr(model_files, "copy_file", changing)
    with pytest.raises(InputError, match=r"model\.onnx: the file has changed while it was copied; deploy again once"):
        kept.add({model})
    assert content(kept) == {}


def test_copies_that_do_not_fit_are_not_begun(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add({model})
    large = model.with_name("large.onnx")
    large.write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(
        InputError, match=r"need 3 MiB of disk, but 1 MiB are free; free some space, or.*--state"
    ) as caught:
        kept.add({model, large})
    assert caught.value.where == str(kept.folder)
    assert copies == [model]
    assert content(kept) == {sha256("first"): "first"}
    # Copies that exist need no space.
    kept.add({model})


def test_a_disk_that_becomes_full_leaves_no_copy(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path, __: Callable[[], None]) -> None:
        target.write_text("fi")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_files, "copy_file", full)
    with pytest.raises(InputError, match=r"contents: the model files cannot be copied \(No space left on device\)"):
        kept.add({model})
    assert content(kept) == {}


def test_a_copy_in_progress_stops_and_leaves_nothing(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(source: Path, target: Path, check: Callable[[], None]) -> None:
        kept.stop()
        copy_file(source, target, check)

    monkeypatch.setattr(model_files, "copy_file", stopped)
    with pytest.raises(StateError, match="the controller ends, so the model files are not copied"):
        kept.add({model})
    assert content(kept) == {}
    other = model.with_name("other.onnx")
    other.write_text("second")
    with pytest.raises(StateError, match="the controller ends"):
        kept.add({other})


def test_a_copy_of_a_killed_controller_is_not_taken_for_a_whole_one(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Path, "rename", kill)
        # Nothing of a process that is killed tidies up.
        dying.setattr(Path, "unlink", kill)
        with pytest.raises(Killed):
            kept.add({model})
    assert [path.suffix for path in kept.folder.iterdir()] == [".new"]
    following = ModelFiles(kept.folder)
    assert content(following) == {}
    following.add({model})
    assert content(following) == {sha256("first"): "first"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal.sqlite")
    yield found
    found.close()


@pytest.fixture
def deployed(kept: ModelFiles, tmp_path: Path) -> Callable[[str], Wanted]:
    """Returns the input of a deployment whose models have a text. No copy has been used for long."""

    def deploy(text: str) -> Wanted:
        path = tmp_path / f"{text}.onnx"
        path.write_text(text)
        found = replace(wanted(), graphs=kept.keep({"app": graph(path)}))
        age(kept)
        return found

    return deploy


def test_copies_stay_until_no_generation_can_need_them(
    kept: ModelFiles, journal: Journal, deployed: Callable[[str], Wanted]
) -> None:
    state = State(
        running=replace(generation(ONE), wanted=deployed("serves")),
        queued=ChangeRequest(deployed("asked")),
        wanted=deployed("wanted"),
    )
    for number, outcome in enumerate(("replaced", "failed"), 1):
        made = replace(generation(replace(ONE, generation=number)), wanted=deployed(outcome))
        keep(journal, made, "test", by_load=False)
    journal.conclude(1, "replaced")
    journal.conclude(2, "failed")
    deployed("refused")
    kept.collect(state, journal)
    assert sorted(content(kept).values()) == ["asked", "replaced", "serves", "wanted"]
    assert kept.size_bytes == sum(map(len, content(kept).values()))


def test_copies_go_with_the_last_generation_that_a_rollback_reaches(
    kept: ModelFiles, journal: Journal, deployed: Callable[[str], Wanted]
) -> None:
    for number in range(1, RESTORABLE + 2):
        if number in (1, 2, RESTORABLE + 1):
            made = replace(generation(replace(ONE, generation=number)), wanted=deployed(str(number)))
            keep(journal, made, "test", by_load=False)
            journal.conclude(number, "replaced")
            deployed("refused")
            kept.collect(State(), journal)
    assert sorted(content(kept).values()) == ["2", str(RESTORABLE + 1)]


def test_copies_that_were_made_just_now_stay(kept: ModelFiles, journal: Journal, model: Path) -> None:
    kept.add({model})
    kept.collect(State(), journal)
    assert content(kept) == {sha256("first"): "first"}


def test_copies_that_a_deploy_is_about_to_name_are_not_collected(
    kept: ModelFiles,
    journal: Journal,
    model: Path,
    deployed: Callable[[str], Wanted],
    copies: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployed("first")
    deployed("refused")

    def slow(source: Path, target: Path, check: Callable[[], None]) -> None:
        copy_file(source, target, check)
        age(kept)
        kept.collect(State(), journal)

    monkeypatch.setattr(model_files, "copy_file", slow)
    large = model.with_name("large.onnx")
    large.write_text("large")
    kept.add({model, large})
    kept.collect(State(), journal)
    assert sorted(content(kept).values()) == ["first", "large"]


def test_copies_to_which_a_rollback_is_about_to_return_are_not_collected(
    kept: ModelFiles, journal: Journal, deployed: Callable[[str], Wanted]
) -> None:
    earlier = deployed("earlier")
    deployed("refused")
    assert not kept.lacks(earlier.graphs)
    kept.collect(State(), journal)
    assert list(content(kept).values()) == ["earlier"]


def test_a_file_that_goes_while_files_are_copied_is_named(
    kept: ModelFiles, model: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(source: Path, target: Path, check: Callable[[], None]) -> None:
        source.unlink()
        copy_file(source, target, check)

    monkeypatch.setattr(model_files, "copy_file", replaced)
    with pytest.raises(InputError, match=r"model\.onnx: the file or folder cannot be read \(No such file"):
        kept.add({model})
    assert content(kept) == {}
