import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.gpus.model import SLICES, Board, MigProfile

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference" / "mig_profiles.yaml"


def test_the_catalog_has_eight_boards_and_the_processor() -> None:
    assert list(CATALOG) == [
        "A100-40GB",
        "A100-80GB",
        "H100-80GB",
        "H100-94GB",
        "GH200-96GB",
        "H200-141GB",
        "B200-180GB",
        "A30-24GB",
        "cpu",
    ]


@pytest.mark.parametrize("item", CATALOG.values(), ids=CATALOG)
def test_each_profile_lies_within_its_board(item: Board) -> None:
    assert set(item.profiles) <= set(SLICES)
    for kind, profile in [*item.profiles.items(), *item.media_profiles.items()]:
        assert profile.slice == kind
        assert profile.compute_slices <= item.compute_slices
        assert all(0 <= start <= item.memory_slices - profile.memory_slices for start in profile.starts)
    whole = list(item.profiles.values())[-1]
    assert (whole.compute_slices, whole.memory_slices) == (item.compute_slices, item.memory_slices)


@pytest.mark.parametrize("item", CATALOG.values(), ids=CATALOG)
def test_nvml_numbers_identify_one_profile(item: Board) -> None:
    every = [*item.profiles.values(), *item.media_profiles.values()]
    assert len({p.profile_id for p in every}) == len({p.nvml_enum for p in every}) == len(every)


@pytest.mark.parametrize("item", CATALOG.values(), ids=CATALOG)
def test_memory_grows_with_the_memory_slices(item: Board) -> None:
    known = [(p.memory_slices, p.memory_mib) for p in item.profiles.values() if p.memory_mib is not None]
    assert len(set(known)) == len({slices for slices, _ in known})
    assert [mib for _, mib in sorted(known)] == sorted(mib for _, mib in known)


def test_double_memory_slices_have_more_multiprocessors_on_hopper() -> None:
    profiles = CATALOG["H100-80GB"].profiles
    assert [profiles[kind].sm for kind in SLICES] == [16, 26, 32, 60, 64, 132]


def test_unpublished_figures_are_absent() -> None:
    assert {kind: (p.sm, p.memory_mib) for kind, p in CATALOG["B200-180GB"].profiles.items()} == {
        "1g": (18, 20992),
        "1gx2": (30, 45312),
        "2g": (36, 45312),
        "3g": (None, None),
        "4g": (None, None),
        "7g": (None, None),
    }


def test_the_processor_is_partitioned_like_an_a100_without_multiprocessors() -> None:
    cpu, a100 = CATALOG["cpu"], CATALOG["A100-80GB"]
    assert {k: (p.starts, p.memory_slices) for k, p in cpu.profiles.items()} == {
        k: (p.starts, p.memory_slices) for k, p in a100.profiles.items()
    }
    assert cpu.arch == "cpu"
    assert {p.sm for p in cpu.profiles.values()} == {None}
    assert cpu.profiles["1g"].memory_mib == 8192


def test_a_board_is_serialisable_and_hashable() -> None:
    item = board("A100-80GB")
    assert json.loads(json.dumps(asdict(item)))["profiles"]["3g"]["starts"] == [0, 4]
    assert hash(item) == hash(board("A100-80GB"))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("A100-80G", "A100-80GB"),
        ("a100-80gb", "A100-80GB"),
        ("H200", "H200-141GB"),
        ("a100", "A100-40GB or A100-80GB"),
        ("CPU", "cpu"),
    ],
)
def test_an_unknown_name_suggests_the_closest_names(wrong: str, near: str) -> None:
    with pytest.raises(InputError, match=f"'{wrong}'") as caught:
        board(wrong, where="cluster.yaml:5")
    assert caught.value.where == "cluster.yaml:5"
    assert caught.value.hint.startswith(f"did you mean {near}?")


@pytest.mark.parametrize("wrong", ["quantum", ""])
def test_a_name_without_close_matches_lists_all_names(wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        board(wrong)
    assert caught.value.hint == f"it has {', '.join(CATALOG)}"


@pytest.mark.skipif(
    not REFERENCE.exists(), reason="the table of collected nvidia-smi output is not beside the checkout"
)
def test_the_catalog_agrees_with_collected_driver_output() -> None:
    collected = yaml.safe_load(REFERENCE.read_text())["gpus"]
    assert set(collected) == set(CATALOG) - {"cpu"}
    for name, expected in collected.items():
        item = CATALOG[name]
        for key in ("arch", "mode_change", "memory_slices", "compute_slices"):
            assert getattr(item, key) == expected[key], (name, key)
        assert list(item.nvml_names) == expected["nvml_names"]
        ours = {p.name: p for p in [*item.profiles.values(), *item.media_profiles.values()]}
        assert set(ours) == {p["name"] for p in expected["profiles"]}
        for profile in expected["profiles"]:
            assert _collected(profile) == _ours(ours[profile["name"]])


def _collected(profile: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "name",
        "nvml_enum",
        "profile_id",
        "compute_slices",
        "memory_slices",
        "sm",
        "memory_mib",
        "max_instances",
        "media_exclusive",
    )
    sizes = {place["size"] for place in profile["placements"]}
    assert sizes == {profile["memory_slices"]}
    return {key: profile[key] for key in keys} | {"starts": tuple(p["start"] for p in profile["placements"])}


def _ours(profile: MigProfile) -> dict[str, Any]:
    values = asdict(profile)
    del values["slice"]
    return values
