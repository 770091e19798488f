"""Audit of a settled deployment: its processes, regions, routes and MIG instances are exactly those of its status."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.controller.supervised import NAME, WAIT_LIMIT_S, Supervised, is_settled
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.command import shm_prefix
from jigsaw_triton.servers.members import Member, leaders, members
from jigsaw_triton.servers.process import group_members, python_stubs

_AGAIN_S = 0.3
"""Seconds between two audits."""


async def inconsistencies(running: Supervised) -> list[str]:
    """Waits until the deployment is ready and consistent. Returns what is not in the end, one sentence each."""
    give_up_at = time.monotonic() + WAIT_LIMIT_S
    while True:
        status = await asyncio.to_thread(running.status)
        if status is None:
            found = ["no controller answers"]
        elif not is_settled(status):
            found = [f"it is {status['state']}: {'; '.join(status['reasons'])}"]
        else:
            found = await _differences(status, running.deployment.paths)
        if not found or time.monotonic() > give_up_at:
            return found
        await asyncio.sleep(_AGAIN_S)


def remains(paths: Paths) -> list[str]:
    """Returns what a deployment has left behind after `down`."""
    left = [f"process {member.pid} of {member.server}" for member in members(paths.state)]
    left += [f"instance {uuid}" for uuid in _instances(paths)]
    names = {path.stem for path in paths.logs.glob("*.log")}
    prefixes = tuple(shm_prefix(paths.run, name) for name in names)
    left += [str(path) for path in Path("/dev/shm").iterdir() if prefixes and path.name.startswith(prefixes)]
    return [*left, *([str(paths.run)] if paths.run.exists() else [])]


async def _differences(status: dict[str, Any], paths: Paths) -> list[str]:
    running = await asyncio.to_thread(members, paths.state)
    workers = {worker["name"]: worker for worker in status["workers"]}
    pids = {"gateway": status["gateway"]["pid"], **{name: worker["pid"] for name, worker in workers.items()}}
    found = list(_processes(pids, running))
    found += _stubs(workers)
    found += _regions(paths, running)
    uuids = {worker["uuid"] for worker in workers.values() if worker["uuid"]}
    if _instances(paths) != uuids:
        found.append(f"the MIG instances are {_instances(paths)}, but the workers have {uuids}")
    loaded = {name: {model["name"] for model in worker["models"]} for name, worker in workers.items()}
    found += _routes(paths, loaded)
    secret = paths.secret.read_text()
    clients = {name: TritonClient(str(paths.worker_http_socket(name)), secret=secret) for name in workers}
    clients["gateway"] = TritonClient(f"http://{status['gateway']['http']}", secret=secret)
    for name, client in clients.items():
        try:
            async with client:
                index = await client.index()
        except JigsawError as error:
            found.append(str(error))
            continue
        ready = {model for model, state in index.items() if state == "READY"}
        busy = {model: state for model, state in index.items() if state in ("LOADING", "UNLOADING")}
        if ready != loaded.get(name, {NAME}) or busy:
            found.append(f"{name} has {ready} and {busy}, but should have {loaded.get(name, {NAME})}")
    return found


def _processes(pids: dict[str, int | None], running: tuple[Member, ...]) -> Iterator[str]:
    """Yields processes that no server of the status accounts for."""
    leading = {name: member.pid for name, member in leaders(running).items()}
    if leading != pids:
        yield f"the servers' processes are {leading}, but the status says {pids}"
    own = {pid for leader in leading.values() for pid in group_members(leader)}
    for member in running:
        if member.pid not in own:
            yield f"process {member.pid} of {member.server} belongs to no server"


def _stubs(workers: dict[str, Any]) -> Iterator[str]:
    """Yields workers with another number of model processes than of instances."""
    stubs = python_stubs({worker["pid"] for worker in workers.values()}).values()
    found = Counter(stub.server for stub in stubs if stub.status is None)
    for name, worker in workers.items():
        instances = sum(model["instances"] for model in worker["models"])
        if found[worker["pid"]] != instances:
            yield f"{name} has {found[worker['pid']]} model processes for {instances} instances"


def _regions(paths: Paths, running: tuple[Member, ...]) -> Iterator[str]:
    """Yields regions in shared memory that no process of the deployment maps."""
    names = {path.stem for path in paths.logs.glob("*.log")}
    prefixes = tuple(shm_prefix(paths.run, name) for name in names)
    mapped: set[str] = set()
    for member in running:
        try:
            mapped |= set(re.findall(r"/dev/shm/(\S+)", Path(f"/proc/{member.pid}/maps").read_text()))
        except OSError:
            continue
    for path in Path("/dev/shm").iterdir():
        if path.name.startswith(prefixes) and path.name not in mapped and path.exists():
            yield f"no process maps {path}"


def _routes(paths: Paths, loaded: dict[str, set[str]]) -> Iterator[str]:
    """Yields routes that lead to a worker or model that does not exist, and those of an unfinished change."""
    for path in (paths.run / "routes").glob("*.json"):
        try:
            entries = json.loads(path.read_text())["workers"]
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry["model"] not in loaded.get(entry["worker"], ()):
                yield f"the route {path.stem} leads to {entry['model']} on {entry['worker']}, which does not exist"
            if entry["closed"]:
                yield f"the route {path.stem} has a closed entry for {entry['worker']}"


def _instances(paths: Paths) -> set[str]:
    """Returns the UUIDs of the emulated MIG instances."""
    try:
        found = json.loads((paths.state / "mig.json").read_text())["instances"]
    except FileNotFoundError:
        return set()
    return {instance["uuid"] for instance in found}
