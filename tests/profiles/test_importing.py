import json
from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.profiles.importing import Target, parse_results
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.fakes.problems import row

TARGET = Target("A30", "detect", "n", "2g", instances=2, batch=4, memory_mib=700.0)
KEY = ProfileKey("A30", "detect", "n", "2g", 2, 4)

PERF = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "1,69.2,225,2148,64,206,11781,19,0,13891,18795,19753,21018\n"
    "3,84.2,237,1768,21673,209,11742,17,0,35398,43984,47085,51701\n"
    "2,87.2,235,1973,9151,190,11346,17,0,21874,28557,29768,34766\n"
)

ANALYZER = (
    "Model,Batch,Concurrency,Model Config Path,Instance Group,Satisfies Constraints,Throughput (infer/sec),"
    "p99 Latency (ms),GPU Memory Usage (MB)\n"
    "detect,8,1,detect_config_0,1:GPU,Yes,400.0,25.0,1048.576\n"
    "detect,8,2,detect_config_0,1:GPU,Yes,410.0,45.0,1048.576\n"
    "detect,8,2,detect_config_1,2/GPU,Yes,500.0,38.0,2097.152\n"
)

GENAI = (
    "Metric,avg,min,max,p99,p95,p90,p75,p50,p25\r\n"
    'Request Latency (ms),"1,355.35",387.84,2002.81,2000.44,1980.5,1868.83,1756.85,1300.25,1200\r\n'
    "\r\nMetric,Value\r\nRequest Throughput (per sec),1.50\r\n"
)

PARVA = (
    "model,mig_gpcs,batch,mps_procs,throughput_per_proc_rps,latency_s,throughput_total_rps\n"
    "bert,1,1,1,74.408,0.013,74.408\n"
    "bert,7,8,2,200.0,0.05,400.0\n"
    "vgg16,2,4,1,200.0,0.02,200.0\n"
)

LOADGEN = """No warnings encountered during test.

================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : MultiStream
Mode     : PerformanceOnly
99th percentile latency (ns) : 21000000
Result is : VALID
  Min duration satisfied : Yes

================================================
Additional Stats
================================================
Per-query latency:
Min latency (ns)                : 15000000
Mean latency (ns)               : 16000000
50.00 percentile latency (ns)   : 15900000
90.00 percentile latency (ns)   : 17000000
95.00 percentile latency (ns)   : 18000000
99.00 percentile latency (ns)   : 21000000

================================================
Test Parameters Used
================================================
samples_per_query : 8
target_latency (ns): 0
"""


def refusal(text: str, target: Target = TARGET) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_results(text, "r.csv", target)
    return [str(problem) for problem in caught.value.diagnostics]


def export(requests: list[tuple[float, float]], windows: list[float] | None = None, concurrency: int = 2) -> str:
    found: dict[str, Any] = {
        "experiment": {"mode": "concurrency", "value": concurrency},
        "requests": [
            {"timestamp": int(1e6 * begin), "response_timestamps": [int(1e6 * end)]} for begin, end in requests
        ],
        "window_boundaries": [int(1e6 * w) for w in windows or []],
    }
    return json.dumps({"experiments": [found], "version": "2.52.0"})


def test_the_row_of_perf_analyzer_with_all_instances_busy_is_imported() -> None:
    assert parse_results(PERF, "perf.csv", TARGET) == [
        ProfileRow(KEY, 21.874, 29.768, 34.766, 87.2, 700.0, "measured", "perf_analyzer: perf.csv")
    ]


def test_without_a_level_of_concurrency_for_the_instances_the_levels_are_named() -> None:
    (message,) = refusal(PERF, Target("A30", "detect", "n", "2g", instances=4))
    assert "no row has a concurrency of the number of instances (4), only 1, 2, 3" in message
    assert "as many requests in flight as instances" in message


def test_model_analyzer_names_instances_batch_and_memory() -> None:
    one, two = parse_results(ANALYZER, "m.csv", TARGET)
    assert one.key == ProfileKey("A30", "detect", "n", "2g", 1, 8)
    assert (one.latency_p50_ms, one.latency_p95_ms, one.latency_p99_ms) == (20.0, 25.0, 25.0)
    assert (one.throughput_rps, one.memory_mib, one.origin) == (400.0, 1000.0, "Model Analyzer: m.csv")
    assert (two.key.instances, two.latency_p50_ms, two.memory_mib) == (2, 32.0, 2000.0)


def test_several_models_of_model_analyzer_are_not_mixed() -> None:
    both = ANALYZER + "other,16,1,other_config_0,1:GPU,Yes,300.0,60.0,1048.576\n"
    (message,) = refusal(both)
    assert "the file has several models: detect, other; keep the rows of one of them" in message
    (found,) = parse_results(both, "m.csv", Target("A30", "detect", "other", "2g"))
    assert (found.key.variant, found.key.batch) == ("other", 16)


def test_genai_perf_counts_requests_of_a_batch() -> None:
    (found,) = parse_results(GENAI, "g.csv", TARGET)
    assert (found.latency_p50_ms, found.latency_p95_ms, found.latency_p99_ms) == (1300.25, 1980.5, 2000.44)
    assert found.throughput_rps == 6.0


def test_commas_separate_thousands() -> None:
    (found,) = parse_results(GENAI.replace("1300.25", '"1,300.25"'), "g.csv", TARGET)
    assert found.latency_p50_ms == 1300.25


def test_an_export_of_perf_analyzer_gives_percentiles_of_its_requests() -> None:
    # Two requests are in flight: each begins when another ends. The hundredth takes 20 ms.
    requests = [(10.0 * (i // 2), 10.0 * (i // 2) + (20 if i == 99 else 10)) for i in range(100)]
    (found,) = parse_results(export(requests), "e.json", TARGET)
    assert (found.latency_p50_ms, found.latency_p95_ms, found.latency_p99_ms) == (10.0, 10.0, 10.0)
    assert found.throughput_rps == pytest.approx(4 * 100 / 0.51, abs=0.01)
    assert found.origin == "perf_analyzer: e.json"


def test_requests_outside_of_the_windows_do_not_count() -> None:
    slow = [(0.0, 400.0)] * 30
    quick = [(1000.0 + i, 1005.0 + i) for i in range(30)]
    (found,) = parse_results(export(slow + quick, windows=[900.0, 1500.0, 2000.0]), "e.json", TARGET)
    assert found.latency_p99_ms == 5.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (export([(0.0, 1.0)] * 5), "no experiment with a concurrency has 20 requests"),
        (export([(5.0, 1.0)] * 30), "this is not an export of perf_analyzer"),
        ('{"experiments": [{}]}', "this is not an export of perf_analyzer; known are CSV files of perf_analyzer"),
        ('{"experiments": 3', "this is not an export of perf_analyzer"),
    ],
)
def test_other_json_is_refused(text: str, words: str) -> None:
    assert words in refusal(text)[0]


def test_the_summary_of_loadgen_is_one_batch_in_flight() -> None:
    one = Target("A30", "detect", "n", "2g", memory_mib=700.0)
    assert parse_results(LOADGEN, "s.txt", one) == [
        ProfileRow(
            ProfileKey("A30", "detect", "n", "2g", 1, 8), 15.9, 18.0, 21.0, 500.0, 700.0, "measured", "LoadGen: s.txt"
        )
    ]
    single = LOADGEN.replace("MultiStream", "Single Stream").replace("query : 8", "query : 1")
    assert [(row.key.batch, row.throughput_rps) for row in parse_results(single, "s.txt", one)] == [(1, 62.5)]
    assert "concurrency of the number of instances (2), only 1" in refusal(LOADGEN)[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("MultiStream", "Offline", "the scenario 'Offline' does not say in which batches samples ran"),
        ("VALID", "INVALID", "does not say that the result is valid"),
        ("50.00 percentile", "51.00 percentile", "lacks '50.00 percentile latency (ns)'"),
        (": 18000000", ": many", "95.00 percentile latency (ns) is 'many'"),
    ],
)
def test_a_summary_of_loadgen_that_is_no_profile_is_refused(old: str, new: str, words: str) -> None:
    (message,) = refusal(LOADGEN.replace(old, new))
    assert words in message


def test_a_table_of_mlperf_results_is_refused_with_the_reason() -> None:
    (message,) = refusal("Organization,System Name,Accelerator,Scenario,Units,Result\nA,B,H100,Offline,Samples/s,9\n")
    assert "no batch size, no kind of slice and no 95th percentile" in message
    assert "mlperf_log_summary.txt" in message


def test_the_table_of_parva_names_models_slices_and_processes() -> None:
    found = parse_results(PARVA, "t.csv", Target("A100-80GB", "label"))
    assert [row.key for row in found] == [
        ProfileKey("A100-80GB", "label", "bert", "1g", 1, 1),
        ProfileKey("A100-80GB", "label", "bert", "7g", 2, 8),
        ProfileKey("A100-80GB", "label", "vgg16", "2g", 1, 4),
    ]
    assert [row.latency_p50_ms for row in found] == [13.439, 50.0, 20.0]
    assert found[1].throughput_rps == 320.0
    assert {row.processes for row in found} == {"mps"}


def test_the_kind_of_instances_is_that_of_the_tool_or_else_the_given_one() -> None:
    target = replace(TARGET, batch=8, processes="mps")
    assert [row.processes for row in parse_results(PERF, "perf.csv", target)] == ["mps"]
    assert [row.processes for row in parse_results(PERF, "perf.csv", TARGET)] == [None]
    assert {row.processes for row in parse_results(ANALYZER, "a.csv", target)} == {"streams"}


def test_a_variant_selects_the_rows_of_its_model() -> None:
    found = parse_results(PARVA, "t.csv", Target("A100-80GB", "label", "vgg16"))
    assert [row.key.variant for row in found] == ["vgg16"]
    assert "no row is of vgg19" in refusal(PARVA, Target("A100-80GB", "label", "vgg19"))[0]


def test_profiles_csv_gives_the_rows_of_the_target() -> None:
    known = [row("t", "v"), row("t", "v", batch=2), row("t", "w"), row("u", "v"), row("t", "v", slice_="2g")]
    known.append(row("t", "v", gpu="A30"))
    text = write_profiles(known)
    assert parse_results(text, "profiles.csv", Target("cpu", "t", "v", "1g", instances=2, batch=4)) == known[:2]
    assert len(parse_results(text, "profiles.csv", Target("cpu", "t"))) == 4
    of_mps = parse_results(text, "profiles.csv", Target("cpu", "t", processes="mps"))
    assert [row.processes for row in of_mps] == ["mps"] * 4
    (message,) = refusal(text, Target("A30", "u", "v", "2g"))
    assert "no row is of A30, u, v, 2g" in message


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        (PERF, "21874", "nan", "r.csv:4: p50 latency is 'nan'; it must be a finite number greater than 0"),
        (PERF, "87.2", "-87.2", "r.csv:4: Inferences/Second is '-87.2'"),
        (PERF, "21874", "30000", "r.csv:4: the latencies are not ascending: p50 30, p95 29.768, p99 34.766 ms"),
        (PERF, ",34766", "", "r.csv:4: the row must have 13 cells, not 12"),
        (PERF, "3,84.2", "2,84.2", "r.csv:4: duplicate configuration; remove one of the rows; the first is on line 3"),
        (PERF, "p95 latency", "p90 of it", "r.csv:1: the format is unknown: the first line lacks columns"),
        (ANALYZER, "detect,8,1", "detect,1.5,1", "r.csv:2: Batch is '1.5'; it must be a whole number from 1 to 999999"),
        (GENAI, "Request Throughput", "Throughput", "the metric 'request throughput (per sec)' is missing"),
        (GENAI, "1300.25", '"1300,25"', "p50 is '1300,25'; it must be a finite number greater than 0, with a decimal"),
        (GENAI, "1300.25", "N/A", "p50 is 'N/A'"),
        (PARVA, "bert,7", "bert,5", "r.csv:3: mig_gpcs is '5'; known slices: 1g"),
        (PARVA, "vgg16,", "v g,", "r.csv:4: the model 'v g' is no name of a variant; give one with --variant"),
    ],
)
def test_mistakes_are_reported_with_their_line(text: str, old: str, new: str, words: str) -> None:
    assert text.count(old) == 1
    target = Target("A100-80GB", "label") if text is PARVA else TARGET
    assert words in refusal(text.replace(old, new), target)[0]


def test_what_the_file_does_not_say_must_be_given() -> None:
    (message,) = refusal(PERF, Target("A30", "detect", instances=2))
    assert message == "r.csv: the file does not say it: --slice, --variant; add it"


def test_an_empty_file_and_a_file_without_rows_are_refused() -> None:
    assert "the format is unknown" in refusal("")[0]
    assert "the file has no rows" in refusal(PERF.splitlines()[0] + "\n")[0]


def test_a_million_rows_are_refused_at_once() -> None:
    header, line, *_ = PARVA.splitlines()
    found = refusal("\n".join([header, *[line] * 1_000_000]), Target("A100-80GB", "label"))
    assert found == ["r.csv: the file has more than 200000 lines; keep the rows of the models that you need"]


def test_the_first_fifty_mistakes_are_reported_and_the_others_counted() -> None:
    header, line, *_ = PARVA.splitlines()
    found = refusal("\n".join([header, *[line] * 1000]), Target("A100-80GB", "label"))
    assert len(found) == 51
    assert found[-1] == "r.csv: 949 more mistakes are not shown"
