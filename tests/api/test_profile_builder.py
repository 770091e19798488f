"""Profiles that are built in Python."""

from pathlib import Path

import jigsaw_triton as jt
from jigsaw_triton.profiles.read import write_profiles
from tests.api.built import line_of, mistakes


def profiles() -> jt.ProfileBuilder:
    return (
        jt.ProfileBuilder("A100-80GB")
        .row("detect", "s", "2g", batch=4, latency_ms=(5, 6, 7.5), throughput_rps=600, memory_mib=900, instances=2)
        .row("detect", "n", "1g", batch=1, latency_ms=(3, 3, 3), throughput_rps=300, memory_mib=0, source="measured")
        .on("cpu")
        .row("detect", "n", "1g", batch=1, latency_ms=(30, 30, 30), throughput_rps=30, memory_mib=0)
    )


def test_built_profiles_equal_the_ones_from_csv(tmp_path: Path) -> None:
    table = profiles().build()
    assert [(row.key.gpu, row.key.variant, row.source) for row in table.rows()] == [
        ("A100-80GB", "n", "measured"),
        ("A100-80GB", "s", "assumed"),
        ("cpu", "n", "assumed"),
    ]
    (tmp_path / "profiles.csv").write_text(write_profiles(table.rows()))
    assert jt.load_profiles(tmp_path).rows() == table.rows()


def test_wrong_profiles_name_the_call_that_made_them() -> None:
    builder = profiles()
    builder.row("detect", "n", "9g", batch=0, latency_ms=(3, 3, 3), throughput_rps=300, memory_mib=0)
    builder.row("detect", "m", "1g", batch=1, latency_ms=(3, 2, 1), throughput_rps=300, memory_mib=0)
    builder.row("detect", "n", "1g", batch=1, latency_ms=(3, 3, 3), throughput_rps=300, memory_mib=0)
    builder.row("detect", "o", "1g", batch=1, latency_ms=(3, 3, 3), throughput_rps=float("nan"), memory_mib=0)
    found = [line.removeprefix(f"{__file__}:") for line in mistakes(builder)]
    first = line_of('"detect", "n", "9g"')
    starts = [
        f"{first + 2}: this configuration is repeated",
        f"{first}: there is no slice '9g'",
        f"{first}: batch is '0'",
        f"{first + 1}: the latencies are not ascending: p50 3",
        f"{first + 3}: throughput_rps is 'nan'",
    ]
    assert [line[: len(start)] for line, start in zip(found, starts, strict=True)] == starts
