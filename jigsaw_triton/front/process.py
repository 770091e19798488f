"""The front's process: it supervises HAProxy, follows front.yaml and the cells, and runs until it gets a signal."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, take_lock
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import StateError
from jigsaw_triton.front.balancer import INTERVAL_S, Balancer
from jigsaw_triton.front.config import STATE, addresses_in, files, links, state_of
from jigsaw_triton.front.credentials import check_gateway_tls
from jigsaw_triton.front.model import Front
from jigsaw_triton.front.runtime_api import RuntimeApi
from jigsaw_triton.servers.edge.keys import read_keys
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.keeper import Contents, HaproxyKeeper, contents
from jigsaw_triton.servers.haproxy.process import place_in
from jigsaw_triton.servers.members import marks, members, newest
from jigsaw_triton.servers.names import Names, is_address
from jigsaw_triton.servers.os_process import OsProcess

NAME = "front"
"""Name of HAProxy among the servers of the folder, and of its log."""

_NAMES_S = 5.0
"""Seconds between two looks if a gateway's host has another address, and to wait for the first look at the start."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Looked:
    """Result of the last reading of front.yaml, with the addresses of its hosts."""

    front: Front
    addresses: Mapping[str, str]
    contents: Contents


def front_place(paths: Paths) -> Place:
    """Returns the location of HAProxy's files."""
    return place_in(paths.run / NAME)


def run_front(paths: Paths, read: Callable[[], Front]) -> None:
    """Runs a front in this process until it gets SIGTERM or SIGINT, which end HAProxy too.

    If this process dies, HAProxy goes on, and the next front of the folder takes its place without losing a request.

    Args:
        paths: Paths of the front's files, created if missing.
        read: Function that reads front.yaml. It is called again and again, since changes are taken over.

    Raises:
        StateError: Another front runs with this folder.
        InputError: The file has mistakes, or a port is in use.
        JigsawError: HAProxy cannot be fetched or does not start.
    """
    paths.create()
    try:
        lock = take_lock(paths.lock)
    except AlreadyRunsError as error:
        hint = "give each front its own folder with --state, and its own ports"
        raise StateError(
            "a front, or the controller of a deployment, is already running here", where=error.where, hint=hint
        ) from error
    try:
        asyncio.run(_Running(paths, read).run())
    finally:
        os.close(lock)


class _Running:
    """A front that runs.

    Args:
        paths: Paths of its files.
        read: Function that reads front.yaml.
    """

    def __init__(self, paths: Paths, read: Callable[[], Front]) -> None:
        self._paths = paths
        self._read = read
        place = front_place(paths)
        self._api = RuntimeApi(place.admin)
        self._state = place.folder / STATE
        self._state_lock = threading.Lock()
        self._names = Names({})
        self._looked = self._look()
        self._listens = asyncio.Event()
        self._keeper = HaproxyKeeper(
            NAME,
            "HAProxy",
            place,
            paths.log(NAME),
            self._contents,
            self._report,
            env=marks(paths.state, NAME),
            survives=True,
            listening=self._listens.set,
        )

    async def run(self) -> None:
        """Runs until a signal arrives."""
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        # The addresses that an earlier front has found are used as long as a name cannot be resolved.
        states = await self._api.state()
        if states is None:
            states = await asyncio.to_thread(self._saved)
        self._names = Names(addresses_in(self._looked.front, states))
        await asyncio.to_thread(self._follow_names().wait, _NAMES_S)
        found = newest(await asyncio.to_thread(members, self._paths.state), NAME)
        process = OsProcess.find(found.pid, found.started) if found is not None else None
        try:
            if process is not None:
                await self._keeper.adopt(process)
            else:
                ports = self._looked.front.ports
                await self._keeper.start((ports.address, port) for port in (ports.http, ports.grpc, ports.metrics))
            balancing = asyncio.create_task(self._balance(), name="balance")
            ports = self._looked.front.ports
            log.info("the front listens on %s:%s (HTTP) and :%s (gRPC)", ports.address, ports.http, ports.grpc)
            await stopping.wait()
            await end_tasks(balancing)
        finally:
            await self._keeper.stop()

    def _follow_names(self) -> threading.Event:
        """Resolves the names of gateways' hosts again and again. Returns an event that is set after the first time."""
        looked = threading.Event()

        def follow() -> None:
            reported: list[str] = []
            while True:
                hosts = self._looked.front.hosts
                self._names.look(hosts)
                looked.set()
                unknown = sorted(host for host in hosts if not is_address(self._names.address(host)))
                if unknown and unknown != reported:
                    log.warning("no address is known for %s; requests go to the other cells", ", ".join(unknown))
                reported = unknown
                time.sleep(_NAMES_S)

        # The end of the front does not wait for the answer of a resolver.
        threading.Thread(target=follow, name="follow names", daemon=True).start()
        return looked

    async def _balance(self) -> None:
        """Sets the weights of the cells again and again, and at once when another HAProxy has begun to listen."""
        balancer = Balancer(self._api)
        async with aiohttp.ClientSession() as session:
            while True:
                self._listens.clear()
                try:
                    await balancer.look(self._looked.front, session)
                except Exception:
                    log.exception("the weights of the cells could not be computed; the present ones stay")
                await self._keep_state()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._listens.wait(), INTERVAL_S)

    async def _keep_state(self) -> None:
        """Writes the states of the cells to the file that the next HAProxy reads."""
        state = await self._api.state()
        if state is not None:
            await asyncio.to_thread(self._write_state, state)

    def _write_state(self, state: str | None = None) -> None:
        """Writes the states of the cells whose addresses are those of the present file.

        Args:
            state: States that HAProxy has; None for those in the file.
        """
        with self._state_lock, contextlib.suppress(OSError):
            text = self._saved() if state is None else state
            kept = state_of(self._looked.front, text, self._looked.addresses)
            if state is None and kept == text:
                return
            fresh = self._state.with_name(f".{STATE}")
            fresh.write_text(kept, encoding="utf-8")
            fresh.replace(self._state)

    def _saved(self) -> str:
        """Returns the states of the cells that were written last; empty if there are none."""
        try:
            return self._state.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def _contents(self) -> Contents:
        """Returns what HAProxy is to read now. It runs in a thread."""
        self._looked = self._look()
        self._write_state()
        return self._looked.contents

    def _look(self) -> _Looked:
        front = self._read()
        if front.gateway_tls is not None:
            check_gateway_tls(front.gateway_tls)
        keys = read_keys(Path(front.edge.api_keys)) if front.edge.api_keys is not None else None
        addresses = {host: self._names.address(host) for host in front.hosts}
        made = files(front, front_place(self._paths), keys, addresses)
        return _Looked(front, addresses, contents(made, links(front)))

    @staticmethod
    def _report(kind: str, text: str) -> None:
        log.log(logging.ERROR if kind == "error" else logging.INFO, "%s", text)
