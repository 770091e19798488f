import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.profiles.check import Finding
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.report.document import report_document
from jigsaw_triton.profiles.report.figures import Basis, ReportFigures, report_figures
from jigsaw_triton.profiles.report.page import report_html
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable, Source
from tests.fakes.graphs import chain
from tests.fakes.pages import Page
from tests.fakes.problems import grid, row


def application(count: int = 2, accuracy: float = 0.9) -> TaskGraph:
    return chain(1, variant_count=count, slo=Slo(1000.0, accuracy=accuracy), name="app")


def figures(
    rows: Sequence[ProfileRow],
    described: TaskGraph | None = None,
    *,
    fitted: bool = False,
    unfitted: str = "",
    findings: Sequence[Finding] = (),
) -> ReportFigures:
    sources: tuple[Source, ...] = ("measured", "assumed")
    return report_figures(
        ProfileTable(rows),
        file="p.csv",
        modified=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        graph=described,
        bases={gpu: Basis(fit, sources) for gpu, fit in fit_latency(rows, sources).items()} if fitted else {},
        unfitted=unfitted,
        findings=findings,
        rooms={"cpu": {"1g": 2048.0, "2g": 4096.0}},
    )


def two_variants() -> list[ProfileRow]:
    rows = [*grid("t0", "v0", 10.0, slices=("1g", "2g")), *grid("t0", "v1", 4.0, slices=("1g", "2g"))]
    return [replace(one, source="measured") for one in rows]


def test_a_page_is_well_formed_and_refers_to_nothing_outside() -> None:
    text = report_html(figures(two_variants(), application(), fitted=True))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "style") or name.startswith("on")]
    assert {value.removeprefix("#") for value in page.values("href")} <= set(page.ids)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_a_page_says_which_variant_to_choose_and_how_far_to_trust_it() -> None:
    page = Page(report_html(figures(two_variants(), application(), fitted=True)))
    assert "Profiles of app" in page.text
    assert "p.csv" in page.text and "2026-03-04 05:06 UTC" in page.text
    assert "Rows 32 measured" in page.text
    assert "p99 within 1000 ms, accuracy at least 0.9 for each request" in page.text
    assert "from accurate to fast, with items per second and compute slice within 1,000 ms: v0 (" in page.text
    assert page.text.count("Pareto front") == 3
    assert "the latency model predicted 32 rows from others" in page.text
    assert "The check found no mistakes." in page.text
    assert "Not measured" not in page.text


def test_every_variant_has_its_charts() -> None:
    page = Page(report_html(figures(two_variants(), application(), fitted=True)))
    labels = page.values("aria-label")
    for name in ("v0", "v1"):
        assert [label.removesuffix(f" of {name}") for label in labels if name in label] == [
            f"Latency against batch of {name} on a 1g",
            f"Latency against batch of {name} on a 2g",
            "Throughput against slice",
            "Memory against batch",
            f"Latency of {name} over its prediction",
        ]
    assert len(labels) == 12
    assert page.tags.count("circle") > 2 * 32


def test_the_page_says_why_a_variant_is_not_worth_a_choice() -> None:
    rows = [row("t0", "v0", rps=50.0), row("t0", "v1", rps=40.0), row("t0", "v2", p95_ms=5000.0), row("t0", "v3")]
    page = Page(report_html(figures(rows, application(4, accuracy=0.75))))
    assert "v0 is better" in page.text
    assert "too slow for the SLO" in page.text
    assert "below the SLO's accuracy" in page.text
    assert "None has a p95 within 1,000 ms; the throughput ignores the SLO." in page.text


def test_sources_origins_and_errors_are_shown() -> None:
    rows = [
        replace(row("t0", "v0"), source="measured", processes="mps", model="0123456789ab"),
        replace(row("t0", "v0", batch=2), source="measured", origin="perf_analyzer: a.csv"),
        replace(row("t0", "v0", batch=4), source="fitted", origin="fit of 9 rows", error=0.034),
        row("t0", "v0", batch=8),
    ]
    page = Page(report_html(figures(rows)))
    assert "Rows that were measured: 2 of 4, 1 of them by another tool." in page.text
    assert "Rows that a latency model predicts: 1. Errors that they state: median 3.4%, largest 3.4%." in page.text
    assert "Rows that are assumed: 1." in page.text
    assert "1 measured, 1 imported, 1 fitted, 1 assumed" in page.text
    assert "Not measured: the best configuration of v0. Measure it before you rely on it." in page.text
    assert "perf_analyzer: a.csv" in page.text and "fit of 9 rows" in page.text
    assert "mps" in page.text and "0123456789ab" in page.text
    assert page.values("class").count("hollow") >= 2


def test_findings_are_shown_errors_first_and_not_all_of_many() -> None:
    rows = [row("t0", "v0")]
    findings = [Finding(None, "warning", "odd"), *[Finding(rows[0].key, "error", "bad", "do better")] * 60]
    page = Page(report_html(figures(rows, findings=findings)))
    assert "The check found 60 errors and 1 warning:" in page.text
    assert page.text.count("bad; do better") == 50
    assert page.text.index("bad") < len(page.text) and "odd" not in page.text
    assert "11 more are not shown; `jigsaw-triton profiles check` has all of them." in page.text


def test_markup_in_names_is_text() -> None:
    bad = "</title><script>alert(1)</script><b onload='x'>"
    rows = [
        replace(one, key=replace(one.key, task=bad, variant=bad, gpu=bad), origin=bad, source="measured")
        for one in grid("t0", "v", 10.0, slices=("1g",))
    ]
    report = replace(figures(rows, fitted=True, findings=[Finding(rows[0].key, "error", bad, bad)]), file=bad)
    page = Page(report_html(report))
    assert "script" not in page.tags and "b" not in page.tags
    assert not [name for name, _ in page.attributes if name == "onload"]
    assert f"Profiles of {bad}" in page.text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "The file has no rows."),
        ([row("t0", "v0")], "The row of v0"),
        ([row("t0", "v0", memory_mib=0.0)], "The memory is not known."),
        ([row("t0", "v0", gpu="Unknown-1")], "t0 on Unknown-1"),
        ([row("t0", "v0", instances=count) for count in (1, 2)], "All 2 rows of v0"),
        ([row("other", "v0")], "The graph has no such task or variants, so plans ignore these rows."),
        ([row("t0", "v0", p95_ms=9e9)], "No configuration has a p95 within 1,000 ms"),
        ([row("t0", "v0")], "No row was measured."),
        ([row("t0", "v0")], "The latency model could not be fitted: no variant has 4 rows on a GPU model."),
    ],
)
def test_small_and_odd_tables_have_a_page(rows: list[ProfileRow], words: str) -> None:
    assert words in Page(report_html(figures(rows, application()))).text


def test_without_a_graph_the_page_says_where_accuracies_are() -> None:
    page = Page(report_html(figures(two_variants())))
    assert "Profiles of p.csv" in page.text
    assert "Accuracies are in the graph: give the graph instead of the file" in page.text
    assert not [label for label in page.values("aria-label") if "accuracy" in label]


def test_without_a_fit_the_page_says_why() -> None:
    page = Page(report_html(figures(two_variants(), unfitted="scipy is missing")))
    assert "scipy is missing" in page.text
    assert not [label for label in page.values("aria-label") if "prediction" in label]


@pytest.mark.slow
def test_equal_figures_give_equal_pages() -> None:
    assert report_html(figures(two_variants(), fitted=True)) == report_html(figures(two_variants(), fitted=True))


def test_a_large_table_gives_a_page_of_less_than_2_mb() -> None:
    rows = [
        replace(one, key=replace(one.key, instances=count))
        for index in range(10)
        for count in range(1, 6)
        for one in grid("t0", f"v{index}", 10.0 + index, instances=(1,), batches=(1, 2, 4, 8, 16, 32, 64, 128))
    ]
    assert len(rows) == 2000
    assert len(report_html(figures(rows, application(10)))) < 2_000_000


def test_the_document_has_the_figures_of_the_page() -> None:
    report = figures(two_variants(), application(), fitted=True, findings=[Finding(None, "warning", "odd")])
    found = json.loads(json.dumps(report_document(report), allow_nan=False))
    assert (found["graph"], found["rows"], found["sources"]) == ("app", 32, {"measured": 32})
    assert found["modified"] == "2026-03-04T05:06:00+00:00"
    assert found["findings"] == [{"key": None, "severity": "warning", "message": "odd", "hint": ""}]
    ((first, second),) = [one["variants"] for one in found["tasks"]]
    assert (first["variant"], second["variant"]) == ("v0", "v1")
    assert first["on_pareto_front"] and len(first["rows"]) == 16
    assert first["best"] in first["rows"] and first["best"]["throughput_per_slice_rps"] > 0
    assert 0 <= first["fit"]["coverage"] <= 1 and len(first["fit"]["predictions"]) == 16
    (prediction, *_) = first["fit"]["predictions"]
    low, high = prediction["interval_ms"]
    assert low < prediction["predicted_ms"] < high
