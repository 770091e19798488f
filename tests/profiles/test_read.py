from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import SpecError
from jigsaw_triton.gpus import model as gpus
from jigsaw_triton.profiles import read
from jigsaw_triton.profiles import table as tables
from jigsaw_triton.profiles.read import HEADER, LIMIT_PROBLEMS, missing, parse_profiles, read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes import graphs

TOP = ",".join(HEADER)
ROW = "A100-80GB,detect,n,1g,1,4,10.5,11,12,95.2,1024,measured"
OTHER = "A100-80GB,detect,n,2g,1,4,6,7,8,180,1024,assumed"


def refusal(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_profiles(text, "p.csv")
    return [str(problem) for problem in caught.value.diagnostics]


def test_the_slices_are_those_of_the_gpu_model() -> None:
    assert read.SLICES == gpus.SLICES


def test_rows_are_read() -> None:
    table = parse_profiles(f"{TOP}\n{ROW}\n{OTHER}\n", "p.csv")
    assert len(table) == 2
    key = ProfileKey("A100-80GB", "detect", "n", "1g", 1, 4)
    assert table.get(key) == ProfileRow(key, 10.5, 11, 12, 95.2, 1024, "measured")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",n,", ",s,", None),
        ("A100-80GB", "", "gpu is ''; write a GPU model of the catalog"),
        ("detect", "9", "task is '9'; write the name of a task of the graph"),
        (",n,", ",a b,", "variant is 'a b'"),
        (",1g,", ",5g,", "there is no slice '5g'; known slices: 1g, 1gx2,"),
        (",1,4,", ",0,4,", "instances is '0'; write a whole number from 1 to 999999"),
        (",1,4,", ",1,2.5,", "batch is '2.5'; write a whole number from 1 to 999999"),
        ("10.5", "nan", "latency_p50_ms is 'nan'; write a finite number greater than 0"),
        ("10.5", "inf", "latency_p50_ms is 'inf'"),
        ("10.5", "1e999", "latency_p50_ms is '1e999'"),
        ("10.5", "-1", "latency_p50_ms is '-1'"),
        ("10.5", "0", "latency_p50_ms is '0'"),
        ("10.5", "1_0", "latency_p50_ms is '1_0'"),
        ("10.5", " 10", "latency_p50_ms is ' 10'"),
        ("10.5", "fast", "latency_p50_ms is 'fast'"),
        (
            "10.5",
            "11.5",
            "the latencies are not ascending: p50 11.5, p95 11, p99 12 ms; they must satisfy p50 <= p95 <= p99",
        ),
        ("95.2", "0.0", "throughput_rps is '0.0'; write a finite number greater than 0"),
        ("1024", "-3", "memory_mib is '-3'; write a finite number of at least 0"),
        ("measured", "guessed", "source is 'guessed'; known sources: assumed, fitted, measured"),
        ("measured", "mesured", "source is 'mesured'; did you mean 'measured'?"),
        (",measured", "", "the row must have 12 cells, not 11"),
        ("measured", "measured,more", "the row must have 12 cells, not 13"),
        ("measured", '"measured', "this is not valid CSV: unexpected end of data"),
        (ROW, "", "the line is empty; remove it"),
        (ROW, OTHER, "duplicate configuration; remove one of the rows; the first is on line 2"),
    ],
)
def test_a_wrong_row_is_reported_with_its_line(old: str, new: str, words: str | None) -> None:
    assert ROW.count(old) >= 1
    text = f"{TOP}\n{OTHER}\n{ROW.replace(old, new)}\n"
    if words is None:
        assert len(parse_profiles(text, "p.csv")) == 2
        return
    (found,) = refusal(text)
    assert found.startswith("p.csv:3: ")
    assert words in found


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "the header is missing"),
        (TOP.replace("slice,", ""), "the header lacks slice; the first line must be gpu,task"),
        (TOP.replace("slice", "Slice"), "the header lacks slice and has unknown columns 'Slice'"),
        (TOP.replace("gpu,task", "task,gpu"), "the header has its columns in the wrong order or twice"),
        (TOP + ",gpu", "the header has its columns in the wrong order or twice"),
        ("# profiles", "the header lacks gpu, task"),
    ],
)
def test_a_wrong_header_is_refused(header: str, words: str) -> None:
    (found,) = refusal(f"{header}\n{ROW}\n" if header else "")
    assert found.startswith("p.csv:1: ")
    assert words in found


def test_all_mistakes_in_all_rows_are_reported() -> None:
    bad = ROW.replace("10.5", "x").replace("1024", "y").replace("1g", "1h")
    found = refusal(f"{TOP}\n{bad}\n{OTHER}\n{bad}\n")
    assert [problem.partition(": ")[0] for problem in found] == ["p.csv:2"] * 3 + ["p.csv:4"] * 3


def test_mistakes_beyond_the_limit_are_only_counted() -> None:
    found = refusal(f"{TOP}\n" + f"{ROW.replace('10.5', 'x')}\n" * (LIMIT_PROBLEMS + 7))
    assert len(found) == LIMIT_PROBLEMS + 1
    assert found[-1] == "p.csv: 7 more mistakes are not shown"


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "profiles.csv").write_text(f"{TOP}\r\n{ROW}\r\n")
    assert len(read_profiles(tmp_path)) == len(read_profiles(tmp_path / "profiles.csv")) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no such file"), (b"gpu\xff", "the file is not UTF-8 text; save it as UTF-8")],
)
def test_an_unreadable_file_is_reported(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "profiles.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=words):
        read_profiles(path)


NUMBERS = st.floats(min_value=1e-9, max_value=1e12)
KEYS = st.builds(
    ProfileKey,
    gpu=st.sampled_from(["A100-80GB", "H100-80GB", "cpu"]),
    task=st.sampled_from(["detect", "classify-2"]),
    variant=st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
    slice=st.sampled_from(gpus.SLICES),
    instances=st.integers(1, 7),
    batch=st.integers(1, 512),
)


ORIGINS = st.text(max_size=read.LIMIT_ORIGIN).filter(str.isprintable)


@st.composite
def rows(draw: st.DrawFn) -> ProfileRow:
    p50, p95, p99 = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    source: Literal["measured", "fitted", "assumed"] = draw(st.sampled_from(["measured", "fitted", "assumed"]))
    memory, origin, error = draw(NUMBERS | st.just(0.0)), draw(ORIGINS), draw(st.none() | NUMBERS)
    processes: tables.Processes | None = draw(st.sampled_from([None, "streams", "mps"]))
    model = draw(st.just("") | st.from_regex(r"[0-9a-f]{12}", fullmatch=True))
    processor_ms = draw(st.none() | NUMBERS)
    about = (source, origin, error, processes, model, processor_ms)
    return ProfileRow(draw(KEYS), p50, p95, p99, draw(NUMBERS), memory, *about)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows(), unique_by=lambda row: row.key, max_size=12))
def test_written_profiles_can_be_read_back(some: list[ProfileRow]) -> None:
    text = write_profiles(some)
    table = parse_profiles(text, "p.csv")
    assert set(table.rows()) == set(some)
    assert write_profiles(reversed(some)) == text


def test_optional_columns_are_written_only_if_a_row_needs_them() -> None:
    key = ProfileKey("cpu", "t", "v", "1g", 1, 1)
    plain = ProfileRow(key, 1.0, 2.0, 3.0, 4.0, 5.0, "fitted")
    assert write_profiles([plain]).splitlines()[0] == TOP
    for row, columns in (
        (replace(plain, origin="a fit, of 7 rows"), "origin"),
        (replace(plain, error=0.03), "error"),
        (replace(plain, processes="mps"), "processes"),
        (replace(plain, model="0123456789ab", origin="x"), "origin,model"),
    ):
        text = write_profiles([row])
        assert text.splitlines()[0] == f"{TOP},{columns}"
        assert parse_profiles(text, "p.csv").get(key) == row


def test_optional_columns_may_be_in_any_order() -> None:
    table = parse_profiles(f"{TOP},model,origin,processes\n{ROW},0123456789ab,here,streams\n", "p.csv")
    (row,) = table.rows()
    assert (row.origin, row.error, row.processes, row.model) == ("here", None, "streams", "0123456789ab")


@pytest.mark.parametrize(("instances", "kinds"), [(1, {None, "streams", "mps"}), (2, {None, "streams"})])
def test_a_row_holds_for_its_own_kind_of_instances_and_one_instance_for_both(
    instances: int, kinds: set[tables.Processes | None]
) -> None:
    key = ProfileKey("cpu", "t", "v", "1g", instances, 1)
    row = ProfileRow(key, 1.0, 2.0, 3.0, 4.0, 5.0, "measured")
    every: tuple[tables.Processes | None, ...] = (None, "streams", "mps")
    assert {kind for kind in every if replace(row, processes=kind).holds_for("streams")} == kinds


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("a\tb,", "origin is 'a\\tb'; write up to 200 printable characters"),
        (f"{'x' * 201},", "write up to 200 printable characters"),
        (",-0.1", "error is '-0.1'; write a relative error such as 0.03, or nothing"),
        (",1e999", "error is '1e999'"),
        ("fit", "the row must have 14 cells, not 13"),
    ],
)
def test_a_wrong_origin_is_reported(cells: str, words: str) -> None:
    (message,) = refusal(f"{TOP},origin,error\n{ROW},{cells}\n")
    assert message.startswith("p.csv:2: ")
    assert words in message


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("both,", "processes is 'both'; write streams, mps or nothing"),
        (",0123", "model is '0123'; leave it empty: `jigsaw-triton profile` writes the digest"),
        (",0123456789AB", "model is '0123456789AB'"),
    ],
)
def test_a_wrong_kind_of_instances_and_a_wrong_digest_are_reported(cells: str, words: str) -> None:
    (message,) = refusal(f"{TOP},processes,model\n{ROW},{cells}\n")
    assert message.startswith("p.csv:2: ")
    assert words in message


def test_an_unknown_column_is_refused_with_those_that_are_known() -> None:
    (message,) = refusal(f"{TOP},hash\n{ROW},x\n")
    assert "has unknown columns 'hash'" in message
    assert "and may go on with any of origin, error, processes, model, processor_ms" in message


def test_the_lines_of_rows_are_those_of_the_file() -> None:
    table, lines = read.parse_with_lines(f"{TOP}\n{OTHER}\n{ROW}\n", "p.csv")
    assert [lines[row.key] for row in table.rows()] == [3, 2]


def test_a_missing_profile_is_reported_with_the_command_that_measures_it() -> None:
    graph = graphs.chain(2, variant_count=2)
    line = "A100-80GB,{},{},1g,1,1,1,1,1,1,1,measured"
    known = [line.format("t0", "v0"), line.format("t0", "v1"), line.format("t1", "v1")]
    table = parse_profiles("\n".join([TOP, *known]), "p.csv")
    assert missing(graph, table, ["A100-80GB"]) == (
        "variant 'v0' of t1 has no profile on A100-80GB; "
        "run `jigsaw-triton profile . --task t1 --variant v0` to measure it",
    )
    on_both = missing(graph, table, ["H100-80GB", "A100-80GB"])
    assert [message.partition(";")[0] for message in on_both] == [
        "variant 'v0' of t0 has no profile on H100-80GB",
        "variant 'v1' of t0 has no profile on H100-80GB",
        "variant 'v0' of t1 has no profile on A100-80GB, H100-80GB",
        "variant 'v1' of t1 has no profile on H100-80GB",
    ]
    assert missing(graph, ProfileTable([]), []) == ()


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf", "1e999"])
def test_a_processor_time_is_greater_than_0(value: str) -> None:
    (message,) = refusal(f"{TOP},processor_ms\n{ROW},{value}\n")
    assert f"processor_ms is '{value}'; write milliseconds greater than 0, or nothing" in message
