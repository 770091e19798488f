from pathlib import Path

import pytest

from jigsaw_triton.gpus.holders import holders

UUID = "MIG-0b0dd52c-7a2b-4d5e-8a0f-000000000001"


def process(proc: Path, pid: int, *variables: str) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "environ").write_bytes(b"".join(v.encode() + b"\0" for v in variables))


@pytest.mark.parametrize(
    "variables",
    [
        [f"CUDA_VISIBLE_DEVICES={UUID}"],
        ["HOME=/", f"CUDA_VISIBLE_DEVICES={UUID}", "LANG=C"],
        [f"CUDA_VISIBLE_DEVICES=MIG-other,{UUID}"],
        [f"CUDA_VISIBLE_DEVICES=0, {UUID}"],
    ],
)
def test_a_process_that_was_started_with_the_instance_as_its_device_holds_it(
    tmp_path: Path, variables: list[str]
) -> None:
    process(tmp_path, 41, *variables)
    assert holders(UUID, proc=tmp_path) == (41,)


@pytest.mark.parametrize(
    "variables",
    [
        [],
        ["CUDA_VISIBLE_DEVICES="],
        [f"CUDA_VISIBLE_DEVICES={UUID}2"],
        [f"NVIDIA_VISIBLE_DEVICES={UUID}"],
        [f"NOTE=CUDA_VISIBLE_DEVICES={UUID}"],
        [f"CUDA_VISIBLE_DEVICES_OLD={UUID}"],
    ],
)
def test_a_process_with_a_similar_environment_does_not_hold_it(tmp_path: Path, variables: list[str]) -> None:
    process(tmp_path, 41, *variables)
    assert holders(UUID, proc=tmp_path) == ()


def test_holders_are_sorted_numerically(tmp_path: Path) -> None:
    for pid in (1000, 9, 30):
        process(tmp_path, pid, f"CUDA_VISIBLE_DEVICES={UUID}")
    assert holders(UUID, proc=tmp_path) == (9, 30, 1000)


def test_a_process_that_has_just_ended_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "meminfo").touch()
    process(tmp_path, 41, f"CUDA_VISIBLE_DEVICES={UUID}")
    assert holders(UUID, proc=tmp_path) == (41,)
