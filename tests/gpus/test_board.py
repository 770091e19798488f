from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus.board import Piece, Strip, colours, draw_svg, draw_text, plain
from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Placement

A100 = board("A100-80GB")
SVG = "{http://www.w3.org/2000/svg}"

FIRST = Strip(
    "a/0",
    A100,
    (
        Piece(Placement(4, "3g"), "recognise\nlarge 3x16", "recognise"),
        Piece(Placement(0, "1g"), "detect\nnano 2x8", "detect"),
        Piece(Placement(2, "2g"), "somebody else's"),
    ),
)


def full(title: str, kind: int = 0) -> Strip:
    layout = maximal_layouts(A100)[kind]
    return Strip(title, A100, tuple(Piece(p, f"task {p}", f"t{p.start}") for p in layout))


def test_a_gpu_is_a_strip_of_its_memory_slices() -> None:
    assert plain(draw_text([FIRST], width=75)) == (
        "a/0       │1g     │·······│2g             │3g                             │\n"
        "A100-80GB │detect │·······│somebody else's│recognise                      │\n"
        "          │nano 2…│·······│               │large 3x16                     │\n"
        "\n"
        "■ detect  ■ recognise  · free\n"
    )


def test_a_board_of_four_memory_slices_is_as_wide_as_one_of_eight() -> None:
    rows = draw_text([full("a/0"), Strip("b/0", board("A30-24GB"), (Piece(Placement(2, "2g"), "x"),))], width=80)
    first, second = plain(rows[:1]), plain(rows[3:4])
    assert len(first) == len(second)
    assert second == f"b/0       │{'·' * 15}│{'·' * 15}│2g{' ' * 29}│\n"


def test_identical_gpus_are_drawn_once() -> None:
    alike = [full("a/0"), Strip("a/1", A100, ()), *(full(f"b/{i}") for i in range(118))]
    text = plain(draw_text(alike))
    assert "a/0 x119" in text
    assert "b/7" not in text
    assert text.count("A100-80GB") == 2
    assert text.endswith("xN: N identical GPUs\n")


def test_the_order_of_pieces_does_not_matter() -> None:
    other = Strip("a/1", A100, tuple(reversed(FIRST.pieces)))
    assert "a/0 x2" in plain(draw_text([FIRST, other]))


@given(st.integers(50, 200), st.integers(0, 77))
def test_no_row_is_wider_than_the_terminal(width: int, kind: int) -> None:
    rows = draw_text([full("node-with-a-long-name/0", kind)], width=width)
    widths = {sum(len(text) for text, _ in row) for row in rows[:-2]}
    assert len(widths) == 1
    assert max(widths) <= width


def test_pieces_of_one_key_share_a_colour_that_pieces_without_a_key_never_have() -> None:
    rows = draw_text([FIRST, full("a/1")])
    styles = {text.strip(): style for row in rows for text, style in row if " on " in style}
    palette = colours([FIRST, full("a/1")])
    assert palette["detect"] != palette["recognise"]
    assert styles["detect"].endswith(f"on {palette['detect']}")
    assert styles["recognise"].endswith(f"on {palette['recognise']}")
    assert styles["somebody else's"].split(" on ")[1] not in palette.values()


def test_a_long_legend_goes_over_several_rows() -> None:
    pieces = tuple(Piece(Placement(i, "1g"), "x", f"a-task-of-the-long-name-{i}") for i in range(7))
    legend = plain(draw_text([Strip("a/0", A100, pieces)])).split("\n\n")[1].splitlines()
    assert len(legend) == 4
    assert max(map(len, legend)) <= 80
    assert " ".join(legend).count("a-task-of-the-long-name") == 7


def test_colours_depend_on_the_keys_alone() -> None:
    assert colours([FIRST, full("a/1")]) == colours([full("z/9"), FIRST])
    assert list(colours([FIRST])) == ["detect", "recognise"]


def test_text_on_dark_colours_is_white() -> None:
    strip = Strip("a/0", A100, tuple(Piece(Placement(i, "1g"), f"t{i}", f"t{i}") for i in range(7)))
    inks = [style.split(" on ") for row in draw_text([strip]) for text, style in row if " on " in style]
    by_colour = {colour: ink for ink, colour in inks}
    assert by_colour["#0072B2"] == "white"
    assert by_colour["#F0E442"] == "black"
    assert len(by_colour) == 7


def test_a_truncated_label_says_how_many_lines_are_missing() -> None:
    label = "\n".join(f"model {i}" for i in range(9))
    text = plain(draw_text([Strip("a/0", A100, (Piece(Placement(0, "7g"), label),))]))
    assert "model 2" in text
    assert "model 3" not in text
    assert "+6 more" in text


@pytest.mark.parametrize(("count", "columns"), [(0, 1), (4, 1), (16, 2), (78, 3)])
def test_gpus_in_the_svg_stay_within_its_frame_and_do_not_overlap(count: int, columns: int) -> None:
    strips = [full(f"n{i}/0", i) for i in range(count)]
    root = ElementTree.fromstring(draw_svg(strips))
    _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
    groups = root.findall(f"{SVG}g")[:count]
    corners = [
        tuple(float(v) for v in g.attrib["transform"].removeprefix("translate(").rstrip(")").split()) for g in groups
    ]
    boxes = [[float(r.attrib["x"]) + float(r.attrib["width"]) for r in g.iter(f"{SVG}rect")] for g in groups]
    assert len(set(corners)) == count
    assert len({x for x, _ in corners}) == min(columns, count)
    assert all(x + max(ends) <= width for (x, _), ends in zip(corners, boxes, strict=True))
    assert all(y < height - 30 for _, y in corners)


def test_tooltips_in_the_svg_hold_truncated_labels() -> None:
    root = ElementTree.fromstring(draw_svg([full(f"n{i}/0", i) for i in range(17)] + [FIRST]))
    shown = {t.text for t in root.iter(f"{SVG}text")}
    assert "nano 2x8" not in shown
    assert "nano 2…" in shown
    assert "1g@0 detect, nano 2x8" in {t.text for t in root.iter(f"{SVG}title")}


def test_the_svg_draws_identical_gpus_once_and_names_them_in_a_tooltip() -> None:
    root = ElementTree.fromstring(draw_svg([full("a/0"), FIRST, full("b/1"), full("b/2")]))
    groups = [g for g in root.findall(f"{SVG}g") if g.find(f"{SVG}text/{SVG}tspan") is not None]
    assert len(groups) == 2
    # Each group of GPUs has a title; the legend has none.
    assert "".join(groups[0].find(f"{SVG}text").itertext()) == "a/0, b/1, b/2a/0 x3 A100-80GB"  # type: ignore[union-attr]
    assert "xN: N identical GPUs" in {t.text for t in root.iter(f"{SVG}text")}
    assert "identical" not in draw_svg([full("a/0"), FIRST])


def test_the_svg_escapes_text() -> None:
    strip = Strip("<a&b>", A100, (Piece(Placement(0, "7g"), "</title>\n\"'&", "<k>"),))
    root = ElementTree.fromstring(draw_svg([strip]))
    assert "7g@0 </title>, \"'&" in {t.text for t in root.iter(f"{SVG}title")}
    assert "<k>" in {t.text for t in root.iter(f"{SVG}text")}


def test_the_same_gpus_give_the_same_drawing() -> None:
    strips = [FIRST, full("a/1")]
    assert draw_svg(strips) == draw_svg(list(strips))


def test_every_board_can_be_drawn_empty_and_full() -> None:
    for item in CATALOG.values():
        pieces = tuple(Piece(p, "x", "k") for p in maximal_layouts(item)[-1])
        strips = [Strip("empty", item, ()), Strip("full", item, pieces)]
        assert plain(draw_text(strips)).count("│") > 4
        ElementTree.fromstring(draw_svg(strips))


def test_a_slice_that_the_board_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="A30-24GB has no slice 3g"):
        draw_text([Strip("a/0", board("A30-24GB"), (Piece(Placement(0, "3g"), "x"),))])
