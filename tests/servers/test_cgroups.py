from pathlib import Path

import pytest

from jigsaw_triton.servers.cgroups import Limits, limits


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_tightest_limit_of_version_2_groups_counts(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/a/b\n")
    root = write(
        tmp_path / "groups",
        {
            "a/b/memory.max": "max\n",
            "a/memory.max": f"{8 * 2**30}\n",
            "a/b/cpu.max": "150000 100000\n",
            "a/cpu.max": "max 100000\n",
            "a/b/pids.max": "4000\n",
            "pids.max": "32000\n",
        },
    )
    assert limits(root=root, membership=membership) == Limits(8192, 1.5, 4000)


def test_limits_of_version_1_are_read(tmp_path: Path, membership: Path) -> None:
    membership.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n2:pids:/\n0::/\n")
    root = write(
        tmp_path / "groups",
        {
            "memory/job/memory.limit_in_bytes": f"{2**30}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpu/job/cpu.cfs_quota_us": "-1\n",
            "cpu/job/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.cfs_quota_us": "400000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "pids/pids.max": "max\n",
        },
    )
    assert limits(root=root, membership=membership) == Limits(1024, 4.0, None)


def test_inside_a_container_the_group_is_the_root(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/\n")
    root = write(tmp_path / "groups", {"memory.max": "1073741824\n", "pids.max": "100\n"})
    assert limits(root=root, membership=membership) == Limits(1024, None, 100)


def test_limits_that_cannot_be_read_count_as_unlimited(tmp_path: Path, membership: Path) -> None:
    assert limits(root=tmp_path, membership=membership) == Limits(None, None, None)
