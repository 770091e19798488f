import re
from pathlib import Path

from jigsaw_triton.console.metrics import exposition
from jigsaw_triton.servers.metrics import parse_metrics

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_page_lists_the_metrics_of_the_controller() -> None:
    _, _, section = PAGE.read_text().partition("## Controller")
    samples = parse_metrics(exposition({"serving": True, "degraded": False, "journal_incomplete": True}))
    assert {sample.name for sample in samples} == set(re.findall(r"^\| `(jigsaw_\w+)` \| gauge", section, re.MULTILINE))
    assert [sample.value for sample in samples] == [1, 0, 1]
