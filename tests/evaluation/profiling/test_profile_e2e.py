"""The command `profile` on a real tritonserver."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.applications import fetch_application
from jigsaw_triton.cli.main import program
from jigsaw_triton.controller.fleet.orphans import DRIVER_FACT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.resources import applications_dir
from tests.fakes.nvml.machine import Machine

CHOICE = ("--task", "normalise", "--instances", "1", "--seconds", "0.2", "-o", "json")
"""Options for the task whose model takes least time to load."""


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    ready = applications_dir() / "digits"
    fetch_application(ready, lambda _: None)
    shutil.copytree(ready, tmp_path / "digits", ignore=shutil.ignore_patterns("profiles.csv"))
    return tmp_path / "digits"


def profile(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        program.main(["profile", str(folder), *CHOICE, *arguments])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    document: dict[str, Any] = json.loads(captured.out)
    return document


@pytest.mark.e2e
def test_a_measurement_is_kept_until_it_is_requested_again(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = profile(digits, capsys, "--batches", "2")
    assert (first["measured"], first["kept"]) == (1, 0)
    (row,) = first["rows"]
    assert (row["gpu"], row["variant"], row["slice"], row["batch"]) == ("cpu", "scale", "1g", 2)
    assert row["batches"] >= 5
    assert row["memory_mib"] > 10
    # One lane runs batches of 2 one after the other, and half of them take the median or longer.
    assert row["throughput_rps"] * row["latency_p50_ms"] / 2000 <= 2
    (kept,) = read_profiles(digits).rows()
    assert kept.latency_p50_ms == row["latency_p50_ms"]

    second = profile(digits, capsys, "--batches", "2,3")
    assert (second["measured"], second["kept"]) == (1, 1)
    assert len(read_profiles(digits)) == 2

    third = profile(digits, capsys, "--batches", "3")
    assert (third["measured"], third["kept"]) == (0, 1)

    again = profile(digits, capsys, "--batches", "3", "--again")
    assert (again["measured"], again["kept"]) == (1, 0)


@pytest.mark.e2e
def test_profiling_on_gpus_spares_others_and_removes_the_remains_of_a_killed_run(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    machine = Machine(tmp_path / "gpus", ["cpu"])
    machine.enter()
    try:
        driver = NvmlMigDriver("local", {0: board("cpu")})
        other = machine.foreign(0, "2g", 0)
        left = driver.create(GpuId("local", 0), Placement(6, "1g"))
        state = tmp_path / "state" / "jigsaw-triton" / "profile"
        state.mkdir(parents=True)
        with closing(Journal(state / "journal.sqlite")) as journal:
            journal.keep_instance(left)
            journal.keep_fact(DRIVER_FACT, "nvml")
        found = profile(digits, capsys, "--batches", "2", "--gpus", "1xcpu", "--driver", "nvml", "--slices", "1g")
        assert found["measured"] == 1
        assert [i.uuid for i in driver.instances()] == [other]
        assert [call.arguments for call in machine.changes() if "Placement" in call.name] == [
            "0, 19, 6:1",
            "0, 19, 2:1",
        ]
    finally:
        machine.leave()


@pytest.mark.e2e
def test_instances_that_are_processes_are_measured_under_mps(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n  processes: mps\n"
        "  nodes: [{name: local, gpus: [{model: cpu}]}]\n"
    )
    arguments = ("--cluster", str(tmp_path / "cluster.yaml"), "--slices", "2g", "--batches", "2", "--instances", "2")
    found = profile(digits, capsys, *arguments)
    (row,) = found["rows"]
    assert (found["measured"], row["instances"], row["slice"]) == (1, 2, "2g")
    # There are two lanes with at least five batches each.
    assert row["batches"] >= 10
    assert row["memory_method"] == "pss"


@pytest.mark.e2e
def test_a_sparse_sweep_fits_what_it_does_not_measure(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = profile(digits, capsys, "--batches", "1,2,3,4,6,8,16,32")
    assert (found["measured"], found["kept"], found["fitted"], found["complete"]) == (6, 0, 2, True)
    assert {row.source for row in read_profiles(digits).rows()} == {"measured", "fitted"}
    more = profile(digits, capsys, "--batches", "1,2,3,4,6,8,16,32", "--points", "all")
    assert (more["measured"], more["kept"], more["fitted"]) == (2, 6, 0)


@pytest.mark.e2e
def test_a_measurement_ends_when_it_is_certain(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = profile(digits, capsys, "--batches", "2", "--seconds", "2")
    (row,) = found["rows"]
    assert row["seconds"] >= 1
    assert row["confident"] == (max(row["half_widths"].values()) <= 0.05)
    assert row["confident"] or row["seconds"] >= 2


BREAKS_AT_4 = """\
import os

import numpy as np


class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        if len(inputs["IMAGE"]) == 4 and np.any(inputs["IMAGE"]):
            {fault}
        return {{"NORMAL": inputs["IMAGE"]}}
"""


@pytest.mark.e2e
@pytest.mark.parametrize("fault", ["raise ValueError('four is too many')", "os.kill(os.getpid(), 9)"])
def test_a_configuration_that_fails_is_recorded_and_the_sweep_goes_on(
    digits: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    (digits / "models" / "normalise.py").write_text(BREAKS_AT_4.format(fault=fault))
    arguments = ("profile", str(digits), "--task", "normalise", "--instances", "1,2", "--batches", "1,2,4,8")
    for in_this_run in (True, False):
        with pytest.raises(SystemExit) as ended:
            program.main([*arguments, "--points", "all", "--seconds", "0.2", "-o", "json"])
        document = json.loads(capsys.readouterr().out)
        assert ended.value.code == 1
        (failed,) = document["failed"]
        assert (failed["instances"], failed["batch"], failed["in_this_run"]) == (1, 4, in_this_run)
        assert {(row.key.instances, row.key.batch) for row in read_profiles(digits).rows()} == {
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
        }
        assert document["measured"] == (4 if in_this_run else 0)


@pytest.mark.e2e
def test_busy_neighbours_are_compared_with_idle_ones(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = profile(digits, capsys, "--batches", "2", "--neighbours", "2", "--seconds", "0.5")
    (one,) = found["interference"]
    assert (one["variant"], one["batch"], one["neighbours"]) == ("scale", 2, 2)
    assert one["busy"]["batches"] >= 5
    assert one["throughput_factor"] == one["busy"]["throughput_rps"] / one["idle"]["throughput_rps"]
    # The profile is that of a slice without neighbours.
    assert len(read_profiles(digits)) == 1
