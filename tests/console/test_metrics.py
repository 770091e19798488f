import re
from pathlib import Path

from jigsaw_triton.console.metrics import exposition
from jigsaw_triton.servers.metrics import parse_metrics

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_page_lists_the_metrics_of_the_controller() -> None:
    _, _, section = PAGE.read_text().partition("## Controller")
    otlp = {"exported": 7, "dropped": {"full": 0, "unreachable": 2, "refused": 1}}
    status = {"serving": True, "degraded": False, "journal_incomplete": True}
    samples = parse_metrics(exposition({**status, "otlp": otlp}))
    assert {sample.name for sample in samples} == set(re.findall(r"^\| `(jigsaw_\w+)` \| ", section, re.MULTILINE))
    assert [sample.value for sample in samples] == [1, 0, 1, 7, 0, 2, 1]
    assert [s.labels["outcome"] for s in samples if s.labels] == ["exported", "full", "unreachable", "refused"]
    assert all(f"`{s.labels['outcome']}`" in section for s in samples if s.labels)
    assert len(parse_metrics(exposition({**status, "otlp": None}))) == 3
