"""The pictures of the concept pages are those of plans that hold, and readable."""

import re
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

import jigsaw_triton as jt
from docs.pictures import graphs
from docs.pictures.canvas import INSET, WIDTH, cut
from docs.pictures.drawing import FOLDER, PICTURES, TRAFFIC
from docs.pictures.plans import CELLS_COUNT, EXAMPLES, cells_problem, kept, kept_cells, make
from docs.pictures.plans import FOLDER as PLANS
from jigsaw_triton.planner.cells.validation import partition_violations
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.planner.validation.validate import violations

PAGES = Path(PLANS).parent
_NARROW = {"t": 5.6, "s": 5.0}
"""Average width of a character by the class of a text, in a narrow font such as Roboto."""


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_that_of_its_plan(name: str) -> None:
    assert (FOLDER / f"{name}.svg").read_text() == PICTURES[name](), "run `python -m docs.pictures`"


def test_no_picture_is_left_over() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(PICTURES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_plan_holds(name: str) -> None:
    example = EXAMPLES[name]
    assert violations(kept(name), example.problem(), example.options) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_plan_is_better(name: str) -> None:
    new, old = make(name), kept(name)
    assert (old.slices_used, old.gpus_used) == (new.slices_used, new.gpus_used), "run `python -m docs.pictures plan`"
    (one,), (other,) = old.graphs.values(), new.graphs.values()
    assert one.accuracy == pytest.approx(other.accuracy)


def test_the_cells_hold() -> None:
    partition = kept_cells()
    assert len(partition.cells) == CELLS_COUNT
    assert partition_violations(partition, cells_problem(), Options()) == ()


def test_each_feature_saves_what_the_page_says() -> None:
    fewer = [kept(f"ar-{letters}").slices_used for letters in ("AS", "AT", "ST")]
    assert min(fewer) > 2 * kept("ar-AST").slices_used


def test_the_budgets_of_each_path_fit_the_slo() -> None:
    graph, plan = jt.load_graph(TRAFFIC), kept("traffic-600").graphs["traffic"]
    found = list(graphs.paths(graph))
    assert found == [("detect", "cars"), ("detect", "faces")]
    sums = [sum(plan.tasks[name].budget_ms for name in way) for way in found]
    assert max(sums) <= graph.slo.latency_ms * (1 + 1e-6)


@pytest.mark.parametrize("name", PICTURES)
def test_text_stays_in_the_picture(name: str) -> None:
    for text in fromstring((FOLDER / f"{name}.svg").read_text()).findall("{http://www.w3.org/2000/svg}text"):
        styles = text.get("class", "").split()
        wide = _NARROW[styles[0]] * len(text.text or "")
        left = float(text.get("x", ""))
        left -= wide if "end" in styles else wide / 2 if "middle" in styles else 0
        assert left >= INSET / 2, text.text
        assert left + wide <= WIDTH - INSET / 2, text.text


def test_each_picture_is_on_a_page_with_a_description() -> None:
    shown = [
        (Path(target).stem, words)
        for page in sorted(PAGES.glob("*.md"))
        for words, target in re.findall(r"!\[([^]]+)\]\(\.\./images/concepts/([^)]+)\)", page.read_text())
    ]
    assert sorted(name for name, _ in shown) == sorted(PICTURES)
    assert all(len(words) > 20 for _, words in shown)


@pytest.mark.parametrize(
    ("text", "width", "left"), [("vgg11", 60, "vgg11"), ("efficientnet-b1", 50, "…net-b1"), ("x", 1, "…")]
)
def test_a_long_name_keeps_its_end(text: str, width: float, left: str) -> None:
    assert cut(text, width) == left
