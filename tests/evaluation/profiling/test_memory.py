import os
from pathlib import Path

from jigsaw_triton.evaluation.profiling.memory import held_mib


def test_proportional_set_sizes_are_added_and_ended_processes_count_as_zero(tmp_path: Path) -> None:
    for pid, kib in ((1, 1024), (2, 512)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "smaps_rollup").write_text(
            f"0-1 ---p 0 00:00 0 [rollup]\nRss: 9999 kB\nPss: {kib} kB\nPss_Dirty: 1 kB\nSwapPss: 0 kB\n"
        )
    assert held_mib([1, 2, 3], proc=tmp_path) == 1.5


def test_this_process_uses_memory() -> None:
    assert held_mib([os.getpid()]) > 1
