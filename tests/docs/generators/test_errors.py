"""Every message of an error says what to do, by itself or on the page on troubleshooting."""

import re
from pathlib import Path

import pytest

from docs.generators import errors

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


def test_every_message_has_a_hint_or_is_on_the_page_on_troubleshooting() -> None:
    explained = errors.explained()
    forgotten = [f"{m.module}:{m.line}: {m.text}" for m in errors.messages() if not m.hints]
    assert len(errors.messages()) > 700
    assert [text for text in forgotten if errors.words(text.partition(": ")[2]) not in explained] == []


def test_the_messages_on_the_page_on_troubleshooting_exist() -> None:
    files = [*(ROOT / "jigsaw_triton").rglob("*.py"), *(ROOT / "native").rglob("*.cc"), *(ROOT / "native").rglob("*.h")]
    sources = "\n".join(path.read_text() for path in files)
    known = {errors.words(message.text) for message in errors.messages()}
    parts = [part.strip(" ():") for text in errors.explained() if text not in known for part in text.split("…")]
    assert [part for part in parts if len(part) > 3 and part not in sources] == []
    assert len(parts) > 20


def test_every_message_is_a_heading_with_what_to_do_below() -> None:
    page = errors.all_messages()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert sorted(headings) == sorted(errors.SUBJECTS)
    assert "###### `there is no task '…'`\n\ndid you mean …?\n" in page
    assert len(re.findall(r"^###### `.+`\n\n\S", page, re.MULTILINE)) == page.count("######")


def test_a_module_without_a_heading_is_refused() -> None:
    assert errors.subject("servers.ports") == "Servers"
    assert errors.subject("servers.certificates.authority") == "Several machines"
    with pytest.raises(LookupError, match=r"no heading for the messages of new\.part"):
        errors.subject("new.part")


def test_the_classes_are_in_a_tree_with_their_exit_codes() -> None:
    table = errors.classes()
    assert "| `JigsawError` | 1 |" in table
    assert "| &emsp;&emsp;`SpecError` | 2 |" in table
