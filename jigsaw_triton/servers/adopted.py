"""Finds the process of a server that an earlier controller has started."""

import asyncio

from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import main_process
from jigsaw_triton.servers.members import Member
from jigsaw_triton.servers.os_process import OsProcess, start_time


async def process_of(command: Command, leader: Member | None) -> OsProcess | None:
    """Returns the process of a server that an earlier controller started; None if it has ended.

    Args:
        command: Command of the server.
        leader: Process that the controller started, which is not the server itself if that runs in a container.
    """
    if leader is None or command.container is None:
        return OsProcess.find(leader.pid, leader.started) if leader is not None else None
    pid = await asyncio.to_thread(main_process, command.container)
    started = start_time(pid) if pid is not None else None
    return OsProcess.find(pid, started) if pid is not None and started is not None else None
