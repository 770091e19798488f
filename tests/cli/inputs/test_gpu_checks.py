from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from jigsaw_triton.cli.inputs.gpu_checks import gpu_checks
from jigsaw_triton.servers.checks import Check
from tests.fakes import mps
from tests.fakes.nvml.machine import Machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system whose user has all capabilities."""
    root = tmp_path / "root"
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "status").write_text("Name:\tx\nCapEff:\t000001ffffffffff\n")
    return root


def found(root: Path) -> dict[str, Check]:
    return {check.name: check for check in gpu_checks(root=root)}


def test_a_missing_driver_is_ok(
    make_machine: Callable[..., Machine], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_machine("L4")
    monkeypatch.delenv("NVML_STANDIN")
    checks = found(root)
    assert [(c.name, c.status) for c in checks.values()] == [("NVIDIA driver", "ok")]
    assert "MIG is emulated" in checks["NVIDIA driver"].detail


def test_an_installed_driver_that_does_not_answer_is_an_error(make_machine: Callable[..., Machine], root: Path) -> None:
    make_machine("A100-80GB").unload(load_again=False)
    (root / "proc" / "driver" / "nvidia").mkdir(parents=True)
    check = found(root)["NVIDIA driver"]
    assert (check.status, check.detail) == ("error", "the NVIDIA driver is not loaded")
    assert check.remedy


def test_each_gpu_has_its_mig_mode_and_instances(make_machine: Callable[..., Machine], root: Path) -> None:
    machine = make_machine("A100-80GB", "H100-80GB", "L4")
    machine.foreign(0, "2g", 0)
    machine.foreign(0, "3g", 4, half=True)
    checks = found(root)
    assert checks["NVIDIA driver"] == Check("NVIDIA driver", "ok", "0.0.standin")
    assert checks["GPU 0"].status == "ok"
    assert checks["GPU 0"].detail == (
        "NVIDIA A100-SXM4-80GB (A100-80GB), MIG is on, 2 MIG instances, 1 of them incomplete or split"
    )
    assert checks["GPU 2"].status == "warning"
    assert "does not support MIG" in checks["GPU 2"].detail


def test_mig_that_is_off_or_pending_has_a_remedy(make_machine: Callable[..., Machine], root: Path) -> None:
    make_machine("A100-80GB", "H100-80GB", mig=False)
    pynvml.nvmlInit()
    pynvml.nvmlDeviceSetMigMode(pynvml.nvmlDeviceGetHandleByIndex(0), 1)
    checks = found(root)
    assert checks["GPU 0"].detail.endswith("MIG is on after a reset")
    assert "--gpu-reset -i 0" in checks["GPU 0"].remedy
    assert checks["GPU 1"].detail.endswith("MIG is off: it is one whole slice")
    assert checks["GPU 1"].remedy == "jigsaw-triton mig enable 1"


def test_mig_that_is_off_only_on_one_gpu_of_a_model_is_a_warning(
    make_machine: Callable[..., Machine], root: Path
) -> None:
    make_machine("H100-80GB", "H100-80GB", mig=False)
    pynvml.nvmlInit()
    pynvml.nvmlDeviceSetMigMode(pynvml.nvmlDeviceGetHandleByIndex(1), 1)
    check = found(root)["GPU 0"]
    assert (check.status, check.remedy) == ("warning", "jigsaw-triton mig enable 0")
    assert check.detail.endswith("MIG is off: it is one whole slice, while others of its model are cut")


def test_changing_mig_needs_a_capability(make_machine: Callable[..., Machine], root: Path) -> None:
    make_machine("A100-80GB")
    assert found(root)["MIG rights"].status == "ok"
    (root / "proc" / "self" / "status").write_text("CapEff:\t00000000a80425fb\n")
    check = found(root)["MIG rights"]
    assert check.status == "error"
    assert "CAP_SYS_ADMIN" in check.remedy
    config = root / "proc" / "driver" / "nvidia" / "capabilities" / "mig" / "config"
    config.parent.mkdir(parents=True)
    config.write_text("DeviceFileMinor: 1\nDeviceFileMode: 256\nDeviceFileModify: 1\n")
    assert found(root)["MIG rights"].status == "error"
    (root / "dev" / "nvidia-caps").mkdir(parents=True)
    (root / "dev" / "nvidia-caps" / "nvidia-cap1").touch()
    assert found(root)["MIG rights"].status == "ok"


@pytest.mark.parametrize(
    ("program", "folder", "status", "detail"),
    [
        ("/usr/bin/nvidia-mig-manager", "", "error", "the GPU Operator's MIG manager also changes MIG"),
        ("gpu-kubelet-plugin", "", "error", "NVIDIA's DRA driver"),
        ("", "var/lib/kubelet/plugins/gpu.nvidia.com", "error", "NVIDIA's DRA driver"),
        ("/usr/bin/nv-hostengine", "", "ok", "nv-hostengine may hold an instance for a moment"),
        ("/usr/bin/python3", "", "ok", "no other program is known"),
    ],
)
def test_other_programs_that_change_mig_are_found(
    make_machine: Callable[..., Machine], root: Path, program: str, folder: str, status: str, detail: str
) -> None:
    make_machine("A100-80GB")
    (root / "proc" / "17").mkdir()
    (root / "proc" / "17" / "cmdline").write_bytes(f"{program}\0-n\0".encode())
    (root / folder).mkdir(parents=True, exist_ok=True)
    check = found(root)["MIG owners"]
    assert check.status == status
    assert detail in check.detail
    assert (check.remedy != "") == (status != "ok")


def test_mps_is_found_on_path(
    make_machine: Callable[..., Machine], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_machine("A100-80GB")
    monkeypatch.setenv("PATH", str(tmp_path))
    check = found(root)["MPS"]
    assert check.status == "warning" and "nvidia-compute-utils" in check.remedy
    monkeypatch.setenv("PATH", str(mps.install(tmp_path / "bin")))
    assert found(root)["MPS"].status == "ok"
