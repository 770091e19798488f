"""Hook of MkDocs: links to files outside docs/ lead to the repository."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Returns the text of a page with links that work on the site.

    Args:
        markdown: Text of the page.
        page: The page.
        config: Configuration of the site, which has the address of the repository.
    """
    folder = (DOCS / page.file.src_uri).parent

    def outside(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({config.repo_url}/{kind}/main/{target.relative_to(DOCS.parent)}{match[2] or ''})"

    return LINK.sub(outside, markdown)
