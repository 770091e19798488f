from pathlib import Path

import pytest

from jigsaw_triton.gpus.owners import running_agents, running_owners


def process(root: Path, pid: int, command: bytes) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(command)


@pytest.mark.parametrize(
    ("command", "owners", "agents"),
    [
        (b"/usr/bin/nvidia-mig-manager\0--config\0x\0", ("the GPU Operator's MIG manager",), ()),
        (b"gpu-kubelet-plugin\0", ("NVIDIA's DRA driver",), ()),
        (b"/usr/bin/nv-hostengine\0-n\0", (), ("nv-hostengine",)),
        (b"/bin/sh\0-c\0nvidia-mig-manager\0", (), ()),
        (b"", (), ()),
    ],
)
def test_programs_are_recognised_by_their_names(
    tmp_path: Path, command: bytes, owners: tuple[str, ...], agents: tuple[str, ...]
) -> None:
    process(tmp_path, 17, command)
    (tmp_path / "proc" / "18").mkdir()
    assert running_owners(root=tmp_path) == owners
    assert running_agents(root=tmp_path) == agents


def test_each_owner_is_listed_once(tmp_path: Path) -> None:
    process(tmp_path, 17, b"gpu-kubelet-plugin\0")
    process(tmp_path, 18, b"nvidia-dra-plugin\0")
    process(tmp_path, 19, b"nvidia-mig-parted\0")
    assert running_owners(root=tmp_path) == ("NVIDIA's DRA driver", "mig-parted")
