from dataclasses import replace

import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Board, Cluster, Gpu, GpuId, MigProfile, Placement
from jigsaw_triton.gpus.reported import (
    MigMode,
    ReportedGpu,
    ReportedInstance,
    ReportedProfile,
    as_reported,
    board_of,
    mismatch,
    surveyed,
)

A100, A30 = CATALOG["A100-80GB"], CATALOG["A30-24GB"]
ON, OFF = MigMode(True, True), MigMode(False, False)


def profile(of: MigProfile, *, engines: int, memory: float = 1.0) -> ReportedProfile:
    return ReportedProfile(
        of.nvml_enum,
        of.profile_id,
        of.compute_slices,
        of.memory_slices,
        of.sm or 1,
        round(memory * (of.memory_mib or 1)),
        of.max_instances,
        of.starts,
        engines,
    )


def gpu(of: Board, *, name: str = "NVIDIA Something", memory: float = 1.0, mode: MigMode = ON) -> ReportedGpu:
    profiles = [profile(p, engines=0, memory=memory) for p in of.profiles.values()]
    profiles += [profile(p, engines=3, memory=memory) for p in of.media_profiles.values()]
    return ReportedGpu(0, "GPU-1", name, mode, profiles=tuple(profiles) if mode.current else ())


@pytest.mark.parametrize("board", [A100, A30], ids=lambda board: board.name)
def test_profiles_are_identified_by_slices_and_engines(board: Board) -> None:
    kinds = gpu(board).kinds()
    assert {kind: p.id for kind, p in kinds.items()} == {
        **{kind: p.profile_id for kind, p in board.profiles.items()},
        **{f"{kind}+me": p.profile_id for kind, p in board.media_profiles.items()},
    }


def test_profiles_for_other_uses_are_no_slice_kinds_but_occupy_placements() -> None:
    graphics = ReportedProfile(10, 47, 1, 1, 14, 9728, 4, (0, 1), 0)
    with_it = replace(gpu(A100), profiles=(*gpu(A100).profiles, graphics))
    assert with_it.kinds()["1g"].id == 19
    assert with_it.placement(ReportedInstance(7, 47, 1, (), "")) == Placement(1, "1g")


def test_an_instance_is_named_by_its_uuid_or_its_number() -> None:
    assert gpu(A100).named(ReportedInstance(3, 14, 0, ("MIG-1",), "MIG-1")) == "MIG-1"
    assert gpu(A100).named(ReportedInstance(3, 14, 0, ("MIG-1", "MIG-2"), "")) == "GPU-1/3"


def test_reported_sizes_override_the_catalog() -> None:
    found = as_reported(A100, gpu(A100, memory=1.02))
    assert found.profiles["1g"].memory_mib == round(1.02 * 9728)
    assert found.profiles["1g"].starts == A100.profiles["1g"].starts
    assert as_reported(A100, gpu(A100, mode=OFF)) == A100


@pytest.mark.parametrize(
    ("board", "found", "reason"),
    [
        (A100, gpu(A100, name="NVIDIA A100 80GB PCIe"), None),
        (A100, gpu(A100, name="NVIDIA A100 80GB PCIe LC", memory=1.03), None),
        (A100, gpu(A100, name="NVIDIA A100-SXM4-40GB", memory=0.5), "1g has 4864 MiB, not 9728"),
        (A100, gpu(A30), "other placements of 1g"),
        (A100, gpu(A100, mode=OFF), "it is an NVIDIA Something"),
    ],
)
def test_a_gpu_matches_a_board_by_name_or_by_profiles(board: Board, found: ReportedGpu, reason: str | None) -> None:
    reason_found = mismatch(board, found)
    assert reason_found is None if reason is None else reason in (reason_found or "")


def test_the_board_of_a_gpu_is_found_in_the_catalog() -> None:
    assert board_of(gpu(A30), CATALOG.values()) is A30
    assert board_of(gpu(A100, mode=OFF), CATALOG.values()) is None


def test_a_gpu_without_mig_is_one_whole_slice() -> None:
    ids = [GpuId("n", 0), GpuId("n", 1)]
    cluster = Cluster(tuple(Gpu(id_, A100) for id_ in ids), driver="nvml")
    whole = surveyed(cluster, dict.fromkeys(ids, gpu(A100, mode=OFF)))
    assert [list(g.board.profiles) for g in whole.gpus] == [["7g"], ["7g"]]
    assert whole.compute_slices == 14


def test_a_gpu_without_mig_among_others_that_have_it_is_one_whole_slice_too() -> None:
    ids = [GpuId("n", 0), GpuId("n", 1)]
    cluster = Cluster(tuple(Gpu(id_, A100) for id_ in ids), driver="nvml")
    mixed = surveyed(cluster, {ids[0]: gpu(A100, mode=OFF), ids[1]: gpu(A100)})
    assert mixed.gpus[0].board == mixed.gpus[1].board
    assert mixed.compute_slices == 14
    assert mixed.gpus[0].uncut == "MIG is off, but on for others of its model; run `jigsaw-triton mig enable 0`"
    assert mixed.gpus[1].uncut == ""
    assert [g.occupancy.kinds(A100, ["1g", "7g"]) for g in mixed.gpus] == [{"7g"}, {"1g", "7g"}]
    pending = surveyed(cluster, {ids[0]: gpu(A100, mode=MigMode(False, True)), ids[1]: gpu(A100)})
    assert "nvidia-smi --gpu-reset -i 0" in pending.gpus[0].uncut
    alone = surveyed(cluster, dict.fromkeys(ids, gpu(A100, mode=OFF)))
    assert [g.uncut for g in alone.gpus] == ["", ""]
