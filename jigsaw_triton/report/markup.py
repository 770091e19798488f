"""Builds HTML and SVG as a tree of elements. Its serialisation escapes all text, so that names cannot be markup."""

from xml.etree.ElementTree import Element, tostring

Content = Element | str


def tag(name: str, /, *content: Content, **attributes: str | float) -> Element:
    """Returns an element.

    Args:
        name: Name of the element.
        content: Texts and elements in it, in order.
        attributes: Attributes. An underscore at the end of a name is dropped (`class_`), others become hyphens.
            Numbers are coordinates, which are rounded to a tenth.
    """
    element = Element(name, {key.rstrip("_").replace("_", "-"): _value(value) for key, value in attributes.items()})
    for part in content:
        append(element, part)
    return element


def append(element: Element, part: Content) -> None:
    """Appends a text or an element."""
    if isinstance(part, Element):
        element.append(part)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + part
    else:
        element.text = (element.text or "") + part


def html(root: Element) -> str:
    """Returns the text of a document."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
