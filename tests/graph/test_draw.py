import xml.etree.ElementTree as ET

import pytest

from jigsaw_triton.graph.draw import mermaid, text
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.picture import svg
from tests.fakes import graphs

SVG = "{http://www.w3.org/2000/svg}"
ALL = [graphs.chain(4), graphs.fan_out(variant_count=2), graphs.diamond(), graphs.conditional(), graphs.cropping()]


def test_text_lists_inputs_tasks_and_outputs() -> None:
    assert text(graphs.conditional()).splitlines() == [
        "conditional: p99 within 1000 ms, accuracy at least 0.5 for each request",
        "  in    X        FP32 [16]",
        "  task  screen   1 variant, accuracy 1",
        "                 < X = inputs.X",
        "                 > SCORE  FP32 [1]",
        "                 > Y  FP32 [16]",
        "  task  inspect  1 variant, accuracy 1",
        "                 when screen.SCORE > 0.5 (50%)",
        "                 < X = screen.Y",
        "                 > Y  FP32 [16]",
        "  out   SCORE    screen.SCORE  FP32 [1]",
        "  out   REPORT   inspect.Y  FP32 [?, 16]",
    ]


def test_python_steps_are_marked() -> None:
    graph = graphs.cropping()
    assert "  step  crop      python steps/crop.py, 5 ms" in text(graph).splitlines()
    assert '  task_crop["crop<br>python steps/crop.py, 5 ms"]' in mermaid(graph).splitlines()
    assert 'class="step"' in svg(graph)


def test_counts_are_shown_with_the_output_that_they_count() -> None:
    assert "                  > PER_LINE  rows of WORDS" in text(graphs.nested()).splitlines()


def test_mermaid_draws_iterated_edges_thick() -> None:
    assert mermaid(graphs.fan_out(variant_count=2)).splitlines() == [
        "flowchart LR",
        '  in_X(["X<br>FP32 [16]"])',
        '  task_detect["detect<br>2 variants, accuracy 0.9 to 1"]',
        '  task_classify["classify<br>for each row of detect.CROPS<br>2 variants, accuracy 0.9 to 1"]',
        '  out_BOX(["BOX"])',
        '  out_LABEL(["LABEL"])',
        "  in_X -->|X| task_detect",
        "  task_detect ==>|CROPS| task_classify",
        "  task_detect -->|BOX| out_BOX",
        "  task_classify -->|LABEL| out_LABEL",
    ]


def test_mermaid_draws_a_condition_dotted() -> None:
    lines = mermaid(graphs.conditional()).splitlines()
    assert "  task_screen -.->|SCORE| task_inspect" in lines
    assert any("when screen.SCORE &gt; 0.5 (50%)" in line for line in lines)


@pytest.mark.parametrize("graph", ALL, ids=lambda graph: graph.name)
def test_the_picture_shows_each_node_once_without_overlap(graph: TaskGraph) -> None:
    root = ET.fromstring(svg(graph))
    words = [element.text for element in root.iter(f"{SVG}text")]
    for name in (*graph.tasks, *graph.steps):
        assert words.count(name) == 1
    boxes = [
        tuple(float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        for element in root.iter(f"{SVG}rect")
        if "x" in element.attrib
    ]
    assert len(boxes) == len(graph.inputs) + len(graph.tasks) + len(graph.steps) + len(graph.outputs)
    for n, (x, y, width, height) in enumerate(boxes):
        assert min(x, y) >= 0
        assert x + width <= float(root.attrib["width"])
        assert y + height <= float(root.attrib["height"])
        for other_x, other_y, other_width, other_height in boxes[:n]:
            beside = x >= other_x + other_width or other_x >= x + width
            above = y >= other_y + other_height or other_y >= y + height
            assert beside or above


def test_the_picture_has_one_curve_per_edge() -> None:
    root = ET.fromstring(svg(graphs.conditional()))
    kinds = [path.attrib["class"] for path in root.iter(f"{SVG}path")]
    assert sorted(kinds) == ["condition", "data", "data", "data", "data"]
