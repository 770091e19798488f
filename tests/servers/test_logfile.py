import asyncio
import errno
from pathlib import Path

import pytest

from jigsaw_triton.background import end_tasks
from jigsaw_triton.servers import logfile
from jigsaw_triton.servers.logfile import excerpt, keep_short, rotate, tail, with_log
from tests.waiting import until


def test_a_writer_continues_after_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("a") as writer:
        writer.write("old\n" * 10)
        writer.flush()
        assert rotate(log, max_bytes=20)
        writer.write("new\n")
        writer.flush()
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "old\n" * 10


def test_a_short_or_missing_log_is_not_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert not rotate(log)
    log.write_text("short\n")
    assert not rotate(log, max_bytes=6)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_log_is_kept_short_also_after_the_disk_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_text("long\n")
    tries: list[Path] = []

    def full_at_first(log: Path) -> bool:
        tries.append(log)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rotate(log, max_bytes=1)

    async def main() -> None:
        keeping = asyncio.create_task(keep_short(log))
        await until(lambda: log.read_text() == "")
        await end_tasks(keeping)

    monkeypatch.setattr(logfile, "_ROTATE_INTERVAL_S", 0.0)
    monkeypatch.setattr(logfile, "rotate", full_at_first)
    asyncio.run(main())
    assert (tmp_path / "log.1").read_text() == "long\n"


def test_tail_returns_the_last_lines_since_an_offset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 3) == []
    log.write_text("before\na\nb\nc\n")
    assert tail(log, 2) == ["b", "c"]
    assert tail(log, 9, since=len("before\n")) == ["a", "b", "c"]
    assert tail(log, 1, since=10**6) == ["c"]


def test_tail_of_a_long_log_reads_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert tail(log, 2) == ["99998", "99999"]


def test_an_error_quotes_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert with_log("it ended", log) == "it ended"
    assert excerpt(log) == ""
    log.write_text("before\nfirst\nsecond\n")
    assert with_log("it ended", log, since=len("before\n")) == "it ended; its log ends with:\n  first\n  second"


def test_an_excerpt_shows_lines_of_json_as_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"time": "12:00", "level": "ERROR", "logger": "a.b", "message": "no room"}\n{"not": "ours"}\n')
    assert excerpt(log) == '\n  12:00 ERROR a.b: no room\n  {"not": "ours"}'
