"""Watches the health of servers: those that die, hang, lose a model's process, or that the gateway condemns."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.condemned import POLL_S, Condemned, Damaged, has_files, listens, take
from jigsaw_triton.controller.fleet.liveness import Change, Liveness
from jigsaw_triton.controller.fleet.progress import Progress, work_of
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.memory import limit_heap
from jigsaw_triton.servers.os_process import describe_status
from jigsaw_triton.servers.process import python_stubs

_HEALTH_POLL_S = 1.0

_DEAD_S, _DEAD_AT_LOAD_S = 0.5, 6.0
"""Seconds after which the server of a model's dead process is restarted, normally and while the server loads a model.
Processes that Triton ends itself exist as dead ones for a moment, and Triton notices one that dies during loading after
three seconds."""

STUCK_S = 60.0
"""Seconds without processor time or input after which the process of a model that is being loaded counts as hanging."""

CONDEMNED = "the gateway condemned it"
"""Cause of the end of a worker, as the event log shows it."""

_UNRESPONSIVE_S = 30.0
"""Seconds without any answer after which a server counts as hanging. Less would kill servers on busy machines."""
_STALLED_S = 5.0
"""Seconds without any answer after which the event log and the status say so."""


class Health:
    """Watches servers while they run. An unhealthy one is killed, and restarted like any server that dies.

    Args:
        paths: Paths of the deployment.
        servers: Running servers by name, which the fleet changes.
        notify: Callback for events that concern servers.

    Attributes:
        gateway_memory_mib: Limit of the gateway's heap in MiB; 0 for none.
        elsewhere: Function that kills a worker of another node that the gateway condemns, given its name and the
            reason.
    """

    def __init__(self, paths: Paths, servers: Mapping[str, Server], notify: Callable[[e.Event], None]) -> None:
        self._paths = paths
        self._servers = servers
        self._notify = notify
        self._polls: asyncio.Task[None] | None = None
        self._condemned: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.gateway_memory_mib = 0
        self.elsewhere: Callable[[str, str], Coroutine[Any, Any, None]] | None = None

    def watch(self, name: str, server: Server) -> None:
        """Starts the task that watches a server, and the tasks that watch all servers if they are not running."""
        server.watch = asyncio.create_task(self._watch(name, server), name=f"watch {name}")
        if self._polls is None or self._polls.done():
            self._polls = asyncio.create_task(self._watch_health(), name="watch the health of servers")
        if self._condemned is None or self._condemned.done():
            self._condemned = asyncio.create_task(self._watch_condemned(), name="watch what the gateway condemns")

    async def _watch(self, name: str, server: Server) -> None:
        status = await server.process.wait()
        server.fence()
        # The stubs of the dead server hold its connections open, so its clients would keep waiting for answers.
        with contextlib.suppress(ServerError):
            await server.process.stop()
        cause = f"killed, because {server.cause}" if server.cause else describe_status(status)
        self._notify(e.GatewayExited(cause) if name == GATEWAY else e.WorkerExited(name, cause))

    async def _watch_health(self) -> None:
        """Kills servers that are alive but unhealthy, which are then restarted like any servers that die.

        A server is unhealthy if it does not answer, or if a Python model has lost a process. Triton 24.10 does not
        restart such a process, and keeps sending it batches, each of which fails after a second.
        """
        dead_since_s: dict[int, float] = {}
        models: dict[int, str] = {}
        probes: dict[int, asyncio.Task[bool]] = {}
        progress = Progress(STUCK_S, time.monotonic)
        liveness = Liveness(_STALLED_S, _UNRESPONSIVE_S, time.monotonic)
        while self._servers:
            await asyncio.sleep(_HEALTH_POLL_S)
            living = {
                server.process.pid: (name, server)
                for name, server in self._servers.items()
                if server.process.pid is not None and server.process.returncode is None
            }
            stubs = await asyncio.to_thread(python_stubs, living.keys())
            now_s = time.monotonic()
            dead = {number: stub.status for number, stub in stubs.items() if stub.status is not None}
            dead_since_s = {number: dead_since_s.get(number, now_s) for number in dead}
            # A process that has died no longer shows which model it ran.
            models = {number: stub.model or models.get(number, "") for number, stub in stubs.items()}
            loading = {
                number: await asyncio.to_thread(work_of, number)
                for number, stub in stubs.items()
                if stub.status is None and stub.model in living[stub.server][1].loading
            }
            for number in progress.looked(loading):
                stuck = living[stubs[number].server][1]
                stuck.stuck = True
                stuck.kill(f"its model {stubs[number].model} made no progress for {STUCK_S:g} s while it was loaded")
            self._limit_memory(self._servers.get(GATEWAY))
            for number, status in dead.items():
                _, server = living[stubs[number].server]
                if now_s - dead_since_s[number] >= (_DEAD_AT_LOAD_S if server.loading else _DEAD_S):
                    server.kill(_death(models[number], status))
            # Nobody waits for a probe, so that a server which hangs delays no other.
            probes = {pid: probe for pid, probe in probes.items() if pid in living}
            for pid, probe in probes.items():
                name, server = living[pid]
                match liveness.probed(pid, answered=probe.done() and probe.result()):
                    case Change.STALLED:
                        self._notify(e.Stalled(name, _STALLED_S))
                    case Change.ANSWERED:
                        self._notify(e.Answered(name))
                    case Change.OVERDUE:
                        server.kill(f"it had not answered for {_UNRESPONSIVE_S:g} s")
            for pid, (_, server) in living.items():
                if pid not in probes or probes[pid].done():
                    probes[pid] = asyncio.create_task(server.client.ready(), name=f"probe {server.process.name}")

    def _limit_memory(self, server: Server | None) -> None:
        """Limits the gateway's heap, since a request of a few bytes can make it allocate all memory of the machine.

        An adopted gateway keeps the limit that it has until it is known whether it loads models.
        """
        if server is None or server.unseen or server.loading or not self.gateway_memory_mib:
            return
        if server.process.pid is not None:
            limit_heap(server.process.pid, self.gateway_memory_mib)

    async def _watch_condemned(self) -> None:
        """Kills servers that the gateway has taken out of service. They are then restarted like any that die."""
        while self._servers:
            await asyncio.sleep(POLL_S)
            if not has_files(self._paths.condemned):
                continue
            for found in await asyncio.to_thread(take, self._paths.condemned, self._paths.worker_socket):
                await self._end_condemned(found)

    async def _end_condemned(self, found: Condemned | Damaged) -> None:
        if isinstance(found, Damaged):
            self._notify(e.Noticed("error", str(found)))
            return
        server = self._servers.get(found.worker)
        known = server is not None or self.elsewhere is not None
        ended = known and listens(self._paths.worker_socket(found.worker), found.identity)
        consequence = "killing and restarting its server" if ended else "its server has already been replaced"
        self._notify(e.Noticed("condemned", f"{found}; {consequence}"))
        if server is not None and server.process.pid is not None and ended:
            # The gateway may notice a dead process before `_watch_health` does.
            stubs = await asyncio.to_thread(python_stubs, {server.process.pid})
            statuses = [stub.status for stub in stubs.values() if stub.status is not None]
            server.kill(_death(found.model, statuses[0]) if statuses else CONDEMNED)
        elif server is None and self.elsewhere is not None and ended:
            # A node may take long to answer, and other servers must not wait for it.
            ending = asyncio.create_task(self.elsewhere(found.worker, CONDEMNED), name=f"end {found.worker}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


def _death(model: str, status: int) -> str:
    """Returns the reason to kill the server of a model whose process has died.

    Args:
        model: Name of the model; empty if it is not known.
        status: Exit status of the process.
    """
    whose = f"its model {model}" if model else "one of its models"
    return f"a process of {whose} ended with {describe_status(status)}"
