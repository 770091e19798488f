"""Hooks of MkDocs: folders in the navigation, and links that leave the site."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"\]\(((?!\w+:)[^)#\s]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Replaces the folders in the navigation by their pages.

    Args:
        config: Configuration of the site.
    """
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(inside) for title, inside in entry.items()}
    if isinstance(entry, list):
        return [_expanded(inside) for inside in entry]
    folder = DOCS / entry
    return [str(page.relative_to(DOCS)) for page in sorted(folder.glob("*.md"))] if folder.is_dir() else entry


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Returns the text of a page whose links to folders, and to files outside of docs/, lead to the repository.

    Args:
        markdown: Text of the page.
        page: The page.
        config: Configuration of the site, which has the address of the repository.
    """
    folder = (DOCS / page.file.src_uri).parent

    def outside(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.exists() or (target.is_relative_to(DOCS) and target.is_file()):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({config.repo_url}/{kind}/main/{target.relative_to(DOCS.parent)}{match[2] or ''})"

    return LINK.sub(outside, markdown)
