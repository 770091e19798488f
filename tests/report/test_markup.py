from jigsaw_triton.report.markup import html, tag


def test_texts_and_elements_keep_their_order() -> None:
    page = tag("p", "one ", tag("b", "two"), " three", " four", tag("br"))
    assert html(page) == "<!doctype html>\n<p>one <b>two</b> three four<br></p>\n"


def test_texts_and_attributes_are_escaped() -> None:
    page = tag("p", "<script>&", class_='"><script>', data_name=1.25)
    assert html(page) == ('<!doctype html>\n<p class="&quot;&gt;<script&gt;" data-name="1.2">&lt;script&gt;&amp;</p>\n')
