"""Hooks of MkDocs: folders in the navigation, generated parts, diagrams, and links that leave the site."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

from docs.generators.expand import expand

DOCS = Path(__file__).parent
LINK = re.compile(r"\]\(((?!\w+:)[^)#\s]+)(#[^)]*)?\)")

DECISIONS = "adr/"
DECISIONS_BOOST = 0.25
"""Weight of decisions in the search: other pages with the same words come before them."""

MERMAID_ASSET = "assets/javascripts/mermaid.js"


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


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the library that draws diagrams.

    Args:
        files: Files of the site.
        config: Configuration of the site, which has the path of the library.
    """
    library = DOCS.parent / config.extra["mermaid"]
    if not library.is_file():
        raise PluginError(f"{library} is missing: install the packages of the console with `python -m console.build`")
    files.append(File.generated(config, MERMAID_ASSET, abs_src_path=str(library)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Returns the text of a page with its generated parts. Links to files outside of docs/ lead to the repository.

    Decisions get less weight in the search.

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
        return f"]({config.extra['repository']}/{kind}/main/{target.relative_to(DOCS.parent)}{match[2] or ''})"

    if page.file.src_uri.startswith(DECISIONS):
        page.meta["search"] = {"boost": DECISIONS_BOOST}
    return expand(LINK.sub(outside, markdown))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Returns a page that loads the library that draws diagrams, if it has one.

    Args:
        output: HTML of the page.
        page: The page.
    """
    if '<pre class="mermaid">' not in output:
        return output
    script = f'<script src="{get_relative_url(MERMAID_ASSET, page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)
