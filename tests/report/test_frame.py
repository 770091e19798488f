from base64 import b64decode

from jigsaw_triton.report.frame import Panel, charts, facts, page, picture, section, table
from jigsaw_triton.report.markup import tag
from tests.fakes.pages import Page

BAD = '<script>alert("x")</script>'


def test_a_page_needs_nothing_else_and_escapes_everything() -> None:
    parts = (
        tag("p", BAD),
        facts([(BAD, BAD)]),
        section(BAD, BAD, name=BAD),
        charts([Panel(BAD, tag("svg"), BAD)]),
        picture(f"<svg>{BAD}</svg>", BAD),
        table([BAD], [[BAD]]),
    )
    text = page(BAD, *parts)
    found = Page(text)
    found.check_alone()
    assert BAD not in text
    assert found.text.count(BAD) == 11
    assert found.values("lang") == ["en"]


def test_a_picture_keeps_its_document() -> None:
    (image,) = picture("<svg>é</svg>", "a picture")
    assert image.get("alt") == "a picture"
    assert b64decode((image.get("src") or "").partition(",")[2]).decode() == "<svg>é</svg>"


def test_empty_columns_are_left_out_and_numbers_are_on_the_right() -> None:
    found = Page(page("t", table(("name", "#count", "empty"), [["a", "1", ""], ["b", "", ""]])))
    assert found.text.split()[-5:] == ["name", "count", "a", "1", "b"]
    assert found.values("class").count("n") == 3
