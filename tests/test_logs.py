import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from jigsaw_triton.logs import about, about_process, final_entry, formatter, readable


@pytest.fixture(autouse=True)
def _unbound() -> Iterator[None]:
    yield
    about_process(generation=None)


def record(text: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("jigsaw_triton.part").makeRecord(
        "jigsaw_triton.part", logging.WARNING, "file.py", 1, text, arguments, None, extra=extra
    )


def entry(made: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = json.loads(formatter("json").format(made))
    return found


def test_text_has_the_time_the_level_the_module_and_the_message() -> None:
    line = formatter("text").format(record("%s is killed", "w0", worker="w0"))
    assert re.fullmatch(r"[\d-]+ [\d:,]+ WARNING jigsaw_triton\.part: w0 is killed", line)


def test_a_line_of_json_has_what_is_known() -> None:
    made = entry(record("%s is killed\nnow", "w0", worker="w0"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(made.pop("time")))
    assert made == {
        "level": "WARNING",
        "logger": "jigsaw_triton.part",
        "message": "w0 is killed\nnow",
        "worker": "w0",
    }


def test_a_traceback_is_in_the_line() -> None:
    made = record("failed")
    try:
        raise ValueError("no")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = formatter("json").format(made)
    assert "\n" not in line
    assert str(json.loads(line)["error"]).endswith("ValueError: no")
    assert readable(line).endswith("\nValueError: no")


def test_a_task_has_the_fields_that_were_set_when_it_was_created() -> None:
    found: list[dict[str, object]] = []

    async def child() -> None:
        found.append(entry(record("child")))

    async def run() -> None:
        about_process(generation=3)
        with about(worker="w0", request=None):
            task = asyncio.create_task(child())
        await task
        found.append(entry(record("other")))
        about_process(generation=None)
        found.append(entry(record("last")))

    asyncio.run(run())
    known = [{name: one[name] for name in ("generation", "worker", "request") if name in one} for one in found]
    assert known == [{"generation": 3, "worker": "w0"}, {"generation": 3}, {}]


def test_the_error_that_ends_a_process_is_formatted_as_text_or_json() -> None:
    assert final_entry("text", "m", "no port") == "no port"
    assert final_entry("text", "m", "crashed", "Traceback") == "Traceback"
    made = json.loads(final_entry("json", "m", "crashed", "Traceback"))
    assert (made["level"], made["logger"], made["message"], made["error"]) == ("CRITICAL", "m", "crashed", "Traceback")


def test_a_line_of_json_reads_as_text() -> None:
    line = '{"time": "T", "level": "INFO", "logger": "m", "message": "ready", "worker": "w0", "generation": 2}'
    assert readable(line) == "T INFO m: ready (generation 2, worker w0)"


@pytest.mark.parametrize("line", ["", "plain", "{", '{"time": 1}', "{}", "[1]", '{"time": "T", "message": "x"}'])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert readable(line) == line
