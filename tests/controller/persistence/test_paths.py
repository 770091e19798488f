from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.command import check_plain


def test_folders_are_private_to_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths = deployment_paths(tmp_path / "state")
    paths.create()
    assert paths.state.stat().st_mode & 0o077 == 0
    paths.run.chmod(0o755)
    with pytest.raises(InputError, match="open to other users"):
        paths.create()


def test_triton_gets_a_plain_path_of_a_repository_whatever_the_state_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths = deployment_paths(tmp_path / "my 'state' für $USER")
    paths.create()
    paths.create()
    plain = paths.plain(paths.worker_repository("a"))
    check_plain(plain)
    paths.worker_repository("a").mkdir(parents=True)
    assert plain.samefile(paths.worker_repository("a"))


def test_a_runtime_directory_that_triton_cannot_use_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "my runtime"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert not deployment_paths(tmp_path).run.is_relative_to(runtime)


def test_each_spelling_of_a_state_folder_is_the_same_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    monkeypatch.chdir(tmp_path / "state")
    spellings = ("../state", ".", str(tmp_path / "link"), f"{tmp_path}/other/../state/")
    assert {deployment_paths(Path(spelling)) for spelling in spellings} == {deployment_paths(tmp_path / "state")}


def test_two_deployments_do_not_share_folders(tmp_path: Path) -> None:
    assert deployment_paths(tmp_path / "a").run != deployment_paths(tmp_path / "b").run


def test_the_error_names_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written") as caught:
        deployment_paths(tmp_path / "file" / "state").create()
    assert str(tmp_path / "file" / "state") in str(caught.value)
