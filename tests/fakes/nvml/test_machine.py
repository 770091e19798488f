"""The stand-in for NVML refuses what real GPUs refuse, and nothing else. pynvml uses it like any driver."""

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
import yaml

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import MEDIA, Board, MigProfile, Placement
from tests.fakes.nvml.machine import Machine
from tests.waiting import eventually

FACTS = Path(__file__).parents[4] / "shared" / "reference" / "mig_profiles.yaml"
BOARDS = sorted(name for name, board in CATALOG.items() if board.nvml_names)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Provides a machine with one A100 and one H100, both with MIG on."""
    yield from entered(Machine(tmp_path / "gpus", ["A100-80GB", "H100-80GB"]))


def entered(machine: Machine) -> Iterator[Machine]:
    machine.enter()
    pynvml.nvmlInit()
    yield machine
    pynvml.nvmlShutdown()
    machine.leave()


def device(index: int = 0) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def create(profile_id: int, start: int, size: int, index: int = 0) -> Any:
    place = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(device(index), profile_id, ctypes.byref(place))


def complete(instance: Any, profile: int) -> Any:
    return pynvml.nvmlComputeInstanceGetInfo(pynvml.nvmlGpuInstanceCreateComputeInstance(instance, profile))


def code(error: pytest.ExceptionInfo[Any]) -> int:
    value: int = error.value.value
    return value


def profiles(board: Board) -> dict[str, MigProfile]:
    return {**board.profiles, **{kind + MEDIA: profile for kind, profile in board.media_profiles.items()}}


@pytest.mark.parametrize("name", BOARDS)
def test_reported_profiles_match_the_catalog(tmp_path: Path, name: str) -> None:
    for _ in entered(Machine(tmp_path / "gpus", [name])):
        assert pynvml.nvmlDeviceGetName(device()) == CATALOG[name].nvml_names[0]
        found = {}
        for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            try:
                info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device(), number)
            except pynvml.NVMLError_NotSupported:
                continue
            places = (pynvml.c_nvmlGpuInstancePlacement_t * 8)()
            count = ctypes.c_uint(8)
            pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device(), info.id, places, ctypes.byref(count))
            starts = tuple(sorted(place.start for place in places[: count.value]))
            found[number] = (info.id, info.sliceCount, places[0].size, info.instanceCount, starts, info.name)
            known = next(p for p in profiles(CATALOG[name]).values() if p.nvml_enum == number)
            assert known.sm in (None, info.multiprocessorCount)
            assert known.memory_mib in (None, info.memorySizeMB)
        assert found == {
            p.nvml_enum: (p.profile_id, p.compute_slices, p.memory_slices, p.max_instances, p.starts, f"MIG {p.name}")
            for p in profiles(CATALOG[name]).values()
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_layouts_are_allowed_exactly_if_the_rules_allow_them(tmp_path: Path, name: str) -> None:
    board = CATALOG[name]
    shuffle = random.Random(11)
    places = [Placement(start, kind) for kind, profile in profiles(board).items() for start in profile.starts]
    for _ in entered(Machine(tmp_path / "gpus", [name])):
        for layout in maximal_layouts(board):
            instances = [create(*_arguments(board, place)) for place in shuffle.sample(layout, len(layout))]
            for place in places:
                assert fits(board, [*layout, place]) is not None
                with pytest.raises(pynvml.NVMLError_InsufficientResources):
                    create(*_arguments(board, place))
            for instance in instances:
                pynvml.nvmlGpuInstanceDestroy(instance)
        for _ in range(200):
            present: dict[Placement, Any] = {}
            for place in shuffle.choices(places, k=8):
                possible = fits(board, [*present, place]) is None
                try:
                    present[place] = create(*_arguments(board, place))
                    assert possible
                except pynvml.NVMLError_InsufficientResources:
                    assert not possible
            for instance in present.values():
                pynvml.nvmlGpuInstanceDestroy(instance)


@pytest.mark.skipif(not FACTS.exists(), reason="the published profiles are not part of this repository")
@pytest.mark.parametrize("name", BOARDS)
def test_published_layouts_are_allowed(tmp_path: Path, name: str) -> None:
    facts = yaml.safe_load(FACTS.read_text())["gpus"][name]
    by_name = {p["name"]: p for p in facts["profiles"]}
    for _ in entered(Machine(tmp_path / "gpus", [name])):
        for layout in facts["maximal_layouts_basic"]:
            instances = []
            for text in layout:
                profile, _, start = text.partition("@")
                size = by_name[profile]["placements"][0]["size"]
                instances.append(create(by_name[profile]["profile_id"], int(start), size))
            for instance in instances:
                pynvml.nvmlGpuInstanceDestroy(instance)


def _arguments(board: Board, place: Placement) -> tuple[int, int, int]:
    profile = board.profile(place.slice)
    assert profile is not None
    return profile.profile_id, place.start, profile.memory_slices


@pytest.mark.parametrize(("arguments"), [(19, 7, 1), (9, 2, 4), (9, 0, 2), (77, 0, 1)])
def test_an_impossible_placement_is_an_invalid_argument(machine: Machine, arguments: tuple[int, int, int]) -> None:
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        create(*arguments)


def test_the_order_of_creations_matters_without_placements(machine: Machine) -> None:
    def create_in_order(*ids: int) -> None:
        try:
            for profile_id in ids:
                pynvml.nvmlDeviceCreateGpuInstance(device(), profile_id)
        finally:
            for handle in _instances():
                pynvml.nvmlGpuInstanceDestroy(handle)

    create_in_order(9, 19, 14, 19)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        create_in_order(19, 19, 14, 9)


def _instances() -> list[Any]:
    found = []
    for profile in (0, 5, 9, 14, 15, 19, 20):
        handles = (pynvml.c_nvmlGpuInstance_t * 8)()
        count = ctypes.c_uint(8)
        pynvml.nvmlDeviceGetGpuInstances(device(), profile, handles, ctypes.byref(count))
        found += handles[: count.value]
    return found


def test_a_compute_instance_makes_a_gpu_instance_usable_under_a_new_uuid(machine: Machine) -> None:
    uuids = set()
    for _ in range(3):
        instance = create(15, 2, 2, index=1)
        assert pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 0, 0).multiprocessorCount == 16
        assert pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 7, 0).multiprocessorCount == 26
        compute_instance = pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 7)
        info = pynvml.nvmlComputeInstanceGetInfo(compute_instance)
        uuid = pynvml.nvmlDeviceGetUUID(info.device)
        assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == uuid
        assert pynvml.nvmlDeviceGetGpuInstanceId(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device(1), 0)) == 4
        with pytest.raises(pynvml.NVMLError_InUse):
            pynvml.nvmlGpuInstanceDestroy(instance)
        pynvml.nvmlComputeInstanceDestroy(compute_instance)
        pynvml.nvmlGpuInstanceDestroy(instance)
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlGpuInstanceGetInfo(instance)
        uuids.add(uuid)
    assert len(uuids) == 3


def test_an_instance_is_in_use_while_a_process_holds_it(machine: Machine) -> None:
    compute_instance = pynvml.nvmlGpuInstanceCreateComputeInstance(create(9, 0, 4), 2)
    mig = pynvml.nvmlComputeInstanceGetInfo(compute_instance).device
    uuid = pynvml.nvmlDeviceGetUUID(mig)
    with subprocess.Popen(["sleep", "100"], env={**os.environ, "CUDA_VISIBLE_DEVICES": uuid}) as child:
        try:
            # The environment of a process is readable a moment after it has begun.
            eventually(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(mig))
            assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(mig)] == [child.pid]
            assert [p.gpuInstanceId for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device())] == [1]
            with pytest.raises(pynvml.NVMLError_InUse):
                pynvml.nvmlComputeInstanceDestroy(compute_instance)
        finally:
            child.kill()
    pynvml.nvmlComputeInstanceDestroy(compute_instance)


def test_an_agent_holds_an_instance_without_being_listed(machine: Machine) -> None:
    instance = create(9, 0, 4)
    machine.agent(0, 0, 3600.0)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlGpuInstanceDestroy(instance)
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(device()) == []
    machine.agent(0, 0, 0.0)
    pynvml.nvmlGpuInstanceDestroy(instance)


def test_versions_of_structs_are_checked(machine: Machine) -> None:
    info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
    info.version = 1
    call = pynvml.nvmlLib.nvmlDeviceGetGpuInstanceProfileInfoV
    assert call(device(), 0, ctypes.byref(info)) == pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH


def test_the_mig_mode_needs_a_reset_on_ampere_and_is_lost_with_the_driver_on_hopper(
    machine: Machine,
) -> None:
    assert pynvml.nvmlDeviceSetMigMode(device(0), 0) == pynvml.NVML_ERROR_RESET_REQUIRED
    assert pynvml.nvmlDeviceGetMigMode(device(0)) == [1, 0]
    machine.reset(0)
    assert pynvml.nvmlDeviceGetMigMode(device(0)) == [0, 0]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        create(19, 0, 1)
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device(0), 0, version=1).id == 19
    assert pynvml.nvmlDeviceSetMigMode(device(0), 1) == pynvml.NVML_ERROR_RESET_REQUIRED
    machine.unload()
    assert pynvml.nvmlDeviceGetMigMode(device(0)) == [1, 1]
    assert pynvml.nvmlDeviceGetMigMode(device(1)) == [0, 0]
    assert pynvml.nvmlDeviceSetMigMode(device(1), 1) == pynvml.NVML_SUCCESS
    assert pynvml.nvmlDeviceGetMigMode(device(1)) == [1, 1]
    create(19, 0, 1, index=1)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlDeviceSetMigMode(device(1), 0)


def test_a_board_may_lack_mig_support(tmp_path: Path) -> None:
    for _ in entered(Machine(tmp_path / "gpus", ["L4"])):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetMigMode(device())


def test_denied_calls_fail_with_no_permission(machine: Machine) -> None:
    machine.deny("changes")
    with pytest.raises(pynvml.NVMLError_NoPermission):
        create(19, 0, 1)
    assert _instances() == []
    machine.deny("all")
    with pytest.raises(pynvml.NVMLError_NoPermission):
        _instances()


def test_instances_of_others_are_created(machine: Machine) -> None:
    uuid = machine.foreign(0, "3g", 4)
    assert machine.foreign(0, "1g+me", 0, half=True) == ""
    assert len(_instances()) == 2
    machine.hold(uuid, 4711)
    mig = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(mig)] == [4711]


def test_the_nth_call_fails_as_requested(machine: Machine) -> None:
    machine.fault("nvmlDeviceCreateGpuInstanceWithPlacement", 2, "fail", pynvml.NVML_ERROR_UNKNOWN)
    create(19, 0, 1)
    with pytest.raises(pynvml.NVMLError_Unknown):
        create(19, 1, 1)
    create(19, 1, 1)
    assert [c.code for c in machine.changes()] == [0, 999, 0]
    assert {c.pid for c in machine.calls()} == {os.getpid()}


@pytest.mark.parametrize(("action", "count"), [("crash before", 0), ("crash after", 1)])
def test_a_fault_kills_the_process_before_or_after_the_call(machine: Machine, action: Any, count: int) -> None:
    machine.fault("change", 1, action)
    program = "from tests.fakes.nvml.test_machine import *; pynvml.nvmlInit(); create(19, 0, 1)"
    ran = subprocess.run([sys.executable, "-c", program], env={**os.environ, **machine.env}, check=False)
    assert ran.returncode == -9
    assert len(_instances()) == count


def test_competing_processes_never_overfill_a_gpu(machine: Machine) -> None:
    program = """
from tests.fakes.nvml.test_machine import *
pynvml.nvmlInit()
for start in range(7):
    try:
        create(19, start, 1)
    except pynvml.NVMLError_InsufficientResources:
        pass
"""
    env = {**os.environ, **machine.env}
    running = [subprocess.Popen([sys.executable, "-c", program], env=env) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(_instances()) == 7
    assert sorted(c.code for c in machine.changes()) == [0] * 7 + [pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES] * 14
