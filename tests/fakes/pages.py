"""Reading of HTML files, with checks that every report has to pass."""

import re
from html.parser import HTMLParser

_VOID = frozenset({"br", "img", "meta"})


class Page(HTMLParser):
    """A page that is read tag by tag. Its end tags must match, and its ids must be unique.

    Args:
        text: Text of the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        """Words of the page, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, name: str) -> list[str]:
        """Returns the values of an attribute."""
        return [value or "" for known, value in self.attributes if known == name]

    def check_alone(self) -> None:
        """Checks that the page needs no script and no other file."""
        assert "script" not in self.tags and "link" not in self.tags and "iframe" not in self.tags
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        assert all(source.startswith("data:image/svg+xml;base64,") for source in self.values("src"))
        assert all(target.startswith("#") for target in self.values("href"))
        assert "default-src 'none'" in " ".join(self.values("content"))
