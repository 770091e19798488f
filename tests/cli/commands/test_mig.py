"""`mig` on the stand-in for NVML."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from tests.cli.conftest import Run

Mig = Callable[..., Any]


@pytest.fixture
def mig(run: Run, tmp_path: Path) -> Mig:
    """Runs `mig`, and returns its JSON with the exit code under `code`."""

    def invoke(*args: str | Path) -> dict[str, Any]:
        result = run("mig", *args, "--state", tmp_path / "state", "-o", "json")
        return {**json.loads(result.stdout), "code": result.exit_code}

    return invoke


def layouts(mig: Mig) -> dict[int, list[str]]:
    return {gpu["index"]: [f"{i['slice']}@{i['start']}" for i in gpu["instances"]] for gpu in mig("list")["gpus"]}


def test_a_missing_driver_has_a_hint(make_machine: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_machine("A100-80GB")
    monkeypatch.delenv("NVML_STANDIN")
    result = run("mig", "list")
    assert result.exit_code == 1
    assert "the NVIDIA driver is not loaded" in result.stderr
    assert "install NVIDIA's driver" in result.stderr


def test_list_shows_owners_and_processes_of_instances(make_machine: Any, mig: Mig, run: Run, tmp_path: Path) -> None:
    machine = make_machine("A100-80GB", "L4")
    other = machine.foreign(0, "2g", 0)
    machine.foreign(0, "1g", 6, half=True)
    machine.hold(other, os.getpid())
    assert mig("apply", "--layout", "2g@0,1g@6,1g@2", "--gpu", "0", "--others")["code"] == 0
    driver = NvmlMigDriver("local", {0: CATALOG["A100-80GB"]})
    deployed = driver.create(GpuId("local", 0), Placement(3, "1g"))
    with closing(Journal(tmp_path / "state" / "journal.sqlite")) as journal:
        journal.keep_instance(deployed)
    gpus = mig("list")["gpus"]
    assert [(i["slice"], i["start"], i["owner"], i["processes"]) for i in gpus[0]["instances"]] == [
        ("2g", 0, "others", [os.getpid()]),
        ("1g", 2, "mig apply", []),
        ("1g", 3, "deployment", []),
        ("1g", 6, "mig apply", []),
    ]
    assert gpus[0]["mig"] == {"current": True, "pending": True}
    assert (gpus[1]["mig"], gpus[1]["model"], gpus[1]["instances"]) == (None, None, [])
    text = run("mig", "list", "--state", tmp_path / "state").stdout
    assert "2g.20gb" in text
    assert "NVIDIA L4" in text
    assert "■ deployment  ■ mig apply  ■ others" in text


def test_commands_that_change_nothing_write_no_file(make_machine: Any, mig: Mig, tmp_path: Path) -> None:
    machine = make_machine("A100-80GB")
    assert mig("list")["code"] == 0
    assert mig("assert", "--layout", "none", "--gpu", "0")["code"] == 0
    assert mig("export")["code"] == 0
    assert mig("apply", "--layout", "7g", "--gpu", "0", "--dry-run")["code"] == 0
    assert not (tmp_path / "state").exists()
    assert machine.changes() == []


def test_apply_changes_as_little_as_possible_and_a_dry_run_prints_the_calls(make_machine: Any, mig: Mig) -> None:
    machine = make_machine("A100-80GB")
    first = mig("apply", "--layout", "3g,1g,1g", "--gpu", "0")
    assert first["gpus"][0]["create"] == ["1g@2", "1g@3", "3g@4"]
    dry = mig("apply", "--layout", "3g,2g", "--gpu", "0", "--dry-run")
    machine.forget_calls()
    done = mig("apply", "--layout", "3g,2g", "--gpu", "0")
    assert (
        done["gpus"] == dry["gpus"] == [{"index": 0, "stay": ["3g@4"], "destroy": ["1g@2", "1g@3"], "create": ["2g@2"]}]
    )
    assert [call.partition("(")[0] for call in dry["calls"]] == [call.name for call in machine.changes()]
    assert dry["calls"][-2:] == [
        "nvmlDeviceCreateGpuInstanceWithPlacement(GPU 0, profile 14, 2:2)",
        "nvmlGpuInstanceCreateComputeInstance(GPU 0 2g@2, 28 multiprocessors)",
    ]
    assert layouts(mig) == {0: ["2g@2", "3g@4"]}
    machine.forget_calls()
    assert mig("apply", "--layout", "2g,3g", "--gpu", "0")["code"] == 0
    assert machine.changes() == []


def test_apply_destroys_instances_of_others_only_on_request(make_machine: Any, mig: Mig) -> None:
    machine = make_machine("A100-80GB")
    machine.foreign(0, "2g", 0)
    refused = mig("apply", "--layout", "7g", "--gpu", "0")
    assert refused["code"] == 4
    assert refused["error"]["where"] == "2g@0 of GPU 0"
    assert "--others" in refused["error"]["hint"]
    # An instance at a wanted place stays, whoever created it.
    assert mig("apply", "--layout", "2g,3g", "--gpu", "0")["code"] == 0
    assert mig("apply", "--layout", "7g", "--gpu", "0", "--others")["code"] == 0
    assert layouts(mig) == {0: ["7g@0"]}


def test_apply_never_touches_a_deployment(make_machine: Any, mig: Mig, tmp_path: Path) -> None:
    make_machine("A100-80GB")
    assert mig("apply", "--layout", "1g@6", "--gpu", "0")["code"] == 0
    driver = NvmlMigDriver("local", {0: CATALOG["A100-80GB"]})
    deployed = driver.create(GpuId("local", 0), Placement(0, "3g"))
    with closing(Journal(tmp_path / "state" / "journal.sqlite")) as journal:
        journal.keep_instance(deployed)
    refused = mig("apply", "--layout", "7g", "--gpu", "0", "--others")
    assert (refused["code"], refused["error"]["message"]) == (4, "this instance belongs to the deployment")
    assert layouts(mig) == {0: ["3g@0", "1g@6"]}


def test_apply_does_not_destroy_what_a_process_is_on(
    make_machine: Any, mig: Mig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.controller.fleet.instances._IN_USE_WAIT_S", 0.0)
    machine = make_machine("A100-80GB")
    other = machine.foreign(0, "2g", 0)
    machine.hold(other, os.getpid())
    refused = mig("apply", "--layout", "7g", "--gpu", "0", "--others")
    assert refused["code"] == 1
    assert f"2g@0 of local/0 is held by process {os.getpid()}" in refused["error"]["message"]
    (left,) = mig("list")["gpus"][0]["instances"]
    assert (left["uuid"], left["owner"]) == (other, "others")


def test_an_interrupted_apply_is_completed_by_the_next(make_machine: Any, mig: Mig) -> None:
    machine = make_machine("A100-80GB")
    machine.fault("nvmlGpuInstanceCreateComputeInstance", 1, "fail", 999)
    machine.fault("nvmlGpuInstanceDestroy", 1, "fail", 999)
    assert mig("apply", "--layout", "7g", "--gpu", "0")["code"] == 1
    (half,) = mig("list")["gpus"][0]["instances"]
    assert (half["half_made"], half["owner"]) == (True, "mig apply")
    assert mig("apply", "--layout", "3g@4", "--gpu", "0")["code"] == 0
    assert layouts(mig) == {0: ["3g@4"]}


def test_assert_exits_with_4_if_a_layout_differs(make_machine: Any, mig: Mig, run: Run) -> None:
    make_machine("A100-80GB", "A100-80GB")
    assert mig("apply", "--layout", "3g@4", "--gpu", "1")["code"] == 0
    assert mig("assert", "--layout", "3g", "--gpu", "1")["ok"] is True
    wrong = mig("assert", "--layout", "3g", "--gpu", "0", "--gpu", "1")
    assert (wrong["code"], wrong["ok"]) == (4, False)
    assert [gpu["create"] for gpu in wrong["gpus"]] == [["3g@4"], []]


@pytest.mark.parametrize("form", ["jigsaw-triton", "mig-parted"])
def test_an_exported_file_is_applied(make_machine: Any, mig: Mig, run: Run, tmp_path: Path, form: str) -> None:
    make_machine("A100-80GB", "A30-24GB", "L4")
    assert mig("apply", "--layout", "3g@4,1g@1,1gx2@2", "--gpu", "0")["code"] == 0
    file = tmp_path / "layouts.yaml"
    assert run("mig", "export", "--format", form, "-O", file, "--state", tmp_path / "state").exit_code == 0
    assert mig("assert", file)["code"] == 0
    assert mig("apply", "--layout", "none", "--gpu", "0")["code"] == 0
    assert mig("assert", file)["code"] == 4
    assert mig("apply", file)["code"] == 0
    assert layouts(mig)[0] == ["1g@1", "1gx2@2", "3g@4"]


def test_a_file_of_mig_parted_applies_to_the_boards_that_it_filters(
    make_machine: Any, mig: Mig, tmp_path: Path
) -> None:
    make_machine("A100-40GB", "A100-80GB")
    file = tmp_path / "parted.yaml"
    file.write_text(
        "version: v1\n"
        "mig-configs:\n"
        "  small:\n"
        '    - {device-filter: "0x000010DE", devices: all, mig-enabled: true, mig-devices: {1g.5gb: 7}}\n'
        '    - {device-filter: ["0x000110DE"], devices: all, mig-enabled: true, mig-devices: {1g.10gb: 7}}\n'
        "  off: [{devices: all, mig-enabled: false}]\n"
    )
    assert mig("apply", file, "--config", "small")["code"] == 0
    assert layouts(mig) == {index: [f"1g@{start}" for start in range(7)] for index in (0, 1)}
    refused = mig("assert", file, "--config", "off")
    assert (refused["code"], refused["error"]["message"]) == (4, "MIG is on for GPU 0, but the layout wants it off")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "give a file or --layout"),
        (("file.yaml", "--layout", "7g"), 2, "give a file or --layout"),
        (("--layout", "7g"), 2, "it is not clear for which GPUs"),
        (("--layout", "7g", "--gpu", "3"), 2, "there is no GPU 3"),
        (("--layout", "9g", "--gpu", "0"), 2, "A100-80GB has no slice '9g'"),
        (("--layout", "3g,3g,1g", "--gpu", "0"), 2, "3g, 3g, 1g do not fit on GPU 0, an A100-80GB"),
        (("--layout", "7g", "--gpu", "1"), 4, "MIG is off for GPU 1, but the layout wants it on"),
        (("nowhere.yaml",), 2, "1 mistake"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_be_applied_is_refused(
    make_machine: Any, mig: Mig, args: tuple[str, ...], code: int, message: str
) -> None:
    make_machine("A100-80GB", "L4")
    for command in ("apply", "assert"):
        refused = mig(command, *args)
        assert refused["code"] == code
        assert message in refused["error"]["message"] or refused["error"]["diagnostics"]


def test_enable_is_pending_on_ampere_until_a_reset(make_machine: Any, mig: Mig, run: Run) -> None:
    machine = make_machine("A100-80GB", mig=False)
    assert mig("enable", "0") == {"gpu": 0, "mig": False, "pending": True, "code": 4}
    assert mig("list")["gpus"][0]["mig"] == {"current": False, "pending": True}
    assert "nvidia-smi --gpu-reset -i 0" in run("mig", "enable", "0").stdout
    machine.reset(0)
    assert mig("enable", "0") == {"gpu": 0, "mig": True, "pending": True, "code": 0}


def test_enable_takes_effect_at_once_on_hopper(make_machine: Any, mig: Mig) -> None:
    machine = make_machine("H100-80GB", "H100-80GB", mig=False)
    assert mig("enable", "1") == {"gpu": 1, "mig": True, "pending": True, "code": 0}
    assert [gpu["mig"]["current"] for gpu in mig("list")["gpus"]] == [False, True]
    assert [call.arguments for call in machine.changes()] == ["1, 1"]


def test_enable_is_refused_while_a_process_is_on_the_gpu(make_machine: Any, mig: Mig) -> None:
    machine = make_machine("H100-80GB", "L4", mig=False)
    machine.hold(mig("list")["gpus"][0]["uuid"], os.getpid())
    refused = mig("enable", "0")
    assert refused["code"] == 1
    assert f"local/0 is held by process {os.getpid()}" in refused["error"]["message"]
    assert mig("enable", "1")["error"]["message"] == "an NVIDIA L4 does not support MIG"
    assert mig("enable", "2")["error"]["message"] == "there is no such GPU"
    assert machine.changes() == []


def test_list_warns_of_a_gpu_without_mig_beside_others(make_machine: Any, mig: Mig, run: Run) -> None:
    make_machine("H100-80GB", "H100-80GB", mig=False)
    assert "warning" not in run("mig", "list").stderr
    mig("enable", "1")
    listed = run("mig", "list")
    assert listed.exit_code == 0
    reason = "MIG is off, but on for others of its model; run `jigsaw-triton mig enable 0`"
    assert f"warning: GPU 0 is one whole slice: {reason}" in listed.stderr
