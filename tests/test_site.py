"""The documentation site builds without a broken link, and its pages are true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LOADED = re.compile(r"<(?:script|img|link)[^>]* (?:src|href)=\"(https?:[^\"]+)")
"""Addresses of other hosts from which a page loads something."""


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert built.returncode == 0, built.stderr
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    loaded = {src for page in pages for src in LOADED.findall(page)}
    assert {src for src in loaded if "jigsaw-triton" not in src} == set()


def test_the_messages_of_troubleshooting_exist() -> None:
    files = [*(ROOT / "jigsaw_triton").rglob("*.py"), *(ROOT / "native").rglob("*.cc")]
    sources = "\n".join(path.read_text() for path in files)
    messages = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    parts = [part.strip(" ()") for message in messages for part in message.split("…")]
    assert [part for part in parts if len(part) > 3 and part not in sources] == []
    assert len(messages) > 20
