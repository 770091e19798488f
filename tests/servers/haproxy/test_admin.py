import asyncio
from pathlib import Path

from jigsaw_triton.servers.haproxy.admin import ask


def test_an_answer_is_read_to_its_end(run_dir: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = await reader.readline()
        for part in (b"answer to ", command):
            writer.write(part)
            await writer.drain()
        writer.close()

    async def main() -> str | None:
        async with await asyncio.start_unix_server(answer, run_dir / "admin.sock"):
            return await ask(run_dir / "admin.sock", "show info")

    assert asyncio.run(main()) == "answer to show info\n"


def test_without_haproxy_there_is_no_answer(run_dir: Path) -> None:
    assert asyncio.run(ask(run_dir / "admin.sock", "show info")) is None
