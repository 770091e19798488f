"""The documentation site builds without a broken link, and loads nothing from other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site_hooks import MERMAID_ASSET

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ROOT / "console" / "node_modules"
"""Packages of the web console, which are installed where it was built."""

LOADED = re.compile(r"<(?:script|img|link)[^>]* (?:src|href)=\"(https?:[^\"]+)")
"""Addresses of other hosts from which a page loads something."""


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    environment = dict(os.environ)
    if not PACKAGES.is_dir():
        # Pages only load the library that draws diagrams, which is one of the packages.
        (tmp_path / "mermaid.js").write_text("// a library")
        environment["MERMAID"] = str(tmp_path / "mermaid.js")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    # The theme's own component for a repository asks its host for the number of stars.
    assert not any('data-md-component="source"' in page for page in pages)
    drawn = [page for page in pages if '<pre class="mermaid">' in page]
    assert drawn
    assert all(f'{MERMAID_ASSET}"></script>' in page for page in drawn)
    assert (tmp_path / "site" / MERMAID_ASSET).stat().st_size > 0
    assert not any("<!-- generated:" in page for page in pages)
    loaded = {src for page in pages for src in LOADED.findall(page)}
    assert {src for src in loaded if "jigsaw-triton" not in src} == set()
