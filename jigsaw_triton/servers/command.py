"""Command lines of tritonservers. Pure: nothing here starts or touches anything."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.errors import InputError
from jigsaw_triton.runtime.spec import (
    RUN_DIR_VARIABLE,
    SECRET_HEADER,
    SECRET_VARIABLE,
    SHM_PREFIX_VARIABLE,
)
from jigsaw_triton.servers.image import Container
from jigsaw_triton.servers.installation import Installation, require_compiled_backend
from jigsaw_triton.servers.launcher import STACK_VARIABLE

_RESTRICTED = "model-repository,shared-memory,trace,logging"
_SOCKET_PATH_BYTES = 107
_GRPC_PORT = 1
"""Triton joins a port to the address, which for a Unix socket becomes the end of its path."""

_POOL_SHARE = 64
_POOL_LEAST_MIB, _POOL_MOST_MIB = 32, 512
"""Triton's pools for tensors on their way: a share of the slice's memory within bounds."""

GATEWAY_STACK_MIB = 256
"""Of the gateway's threads. Triton 24.10 reads the body of an HTTP request that calls itself form data, as curl and
Python's urllib do unless told otherwise, into its thread's stack: with the usual 8 MiB, 8 MB of it end the server."""

FORWARDED_HEADERS = "(?i)traceparent|tracestate"
"""Headers that become parameters of inference requests: W3C's trace context."""

_PRIVATE_GRPC_PORT = 8001
"""Triton appends a port to any gRPC address, and so to the path of a socket."""

_INPUT_LIMIT_SINCE = (2, 60)
_INPUT_LIMIT_MIB = 1024
"""Releases that know `--http-max-input-size`, and what the gateway gives it: Triton's own 64 MiB are less than a batch
of images."""

_SECRET = re.compile(r"[A-Za-z0-9_-]{16,}")
_NOT_PLAIN = re.compile(r"[^\w./~@%+=:,-]")
"""What a shell may read as more than a part of a name."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a tritonserver is started.

    Attributes:
        argv: Program and arguments; the secret is among them.
        env: Variables laid over the inherited ones.
        address: Of the HTTP protocol: a socket's path or `http://host:port`.
        metrics_address: Of /metrics, likewise; empty where there is none.
        grpc_address: Target of gRPC, by which models are loaded: `unix:` and a path, or `host:port`.
        sockets: Paths it will listen on.
        ports: (address, port) pairs it will listen on.
        shm_prefix: How the names of its regions in /dev/shm begin.
        secret: What `SECRET_HEADER` has to carry.
        container: That it runs in; None where it is a process of this machine's own.
    """

    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    address: str
    metrics_address: str
    grpc_address: str
    sockets: tuple[Path, ...]
    ports: tuple[tuple[str, int], ...]
    shm_prefix: str
    secret: str = field(repr=False)
    container: Container | None = None


def shm_prefix(run_dir: Path, name: str) -> str:
    """How the regions in /dev/shm of a deployment's server begin; no other server's regions begin so."""
    # The digest has a fixed length, so that the prefix of worker 1 is not the beginning of that of worker 10.
    digest = hashlib.sha256(f"{run_dir}\n{name}".encode()).hexdigest()[:12]
    return f"jigsaw-{digest}-{name}-"


def worker_command(
    installation: Installation,
    *,
    name: str,
    repository: Path,
    run_dir: Path,
    secret: str,
    device: str | None,
    device_mib: int | None = None,
    mps: Mapping[str, str] = MappingProxyType({}),
    shared: bool = False,
    exit_timeout_s: int = 30,
) -> Command:
    """The tritonserver of a worker, on Unix sockets in the run directory: HTTP, metrics, and gRPC to load models.

    Args:
        installation: What to run.
        name: The worker's.
        repository: Its models; none is loaded at the start.
        run_dir: Of the deployment; the sockets are `workers/<name>.sock`, `workers/<name>.metrics.sock` and
            `workers/<name>.grpc:1` in it.
        secret: What the protocols that change the server are kept behind.
        device: UUID of the MIG instance; None hides all GPUs.
        device_mib: How much of its memory the server may fill; None where unknown.
        mps: Variables of the clients of the instance's MPS daemon; none where there is no daemon.
        shared: Several models share the slice: instances that ask for the rate limiter's resource run in turns.
        exit_timeout_s: How long requests in flight and models may take to end after SIGTERM.

    Raises:
        InputError: The path of a socket is too long, or a folder's is one that Triton cannot use.
    """
    workers = run_dir / "workers"
    http, metrics = workers / f"{name}.sock", workers / f"{name}.metrics.sock"
    grpc = workers / f"{name}.grpc:{_GRPC_PORT}"
    for path in (http, metrics, grpc):
        _check_socket(path)
    prefix = shm_prefix(run_dir, name)
    # The ports beside the unix: addresses of HTTP are not used; Triton joins them to what it logs.
    arguments = [
        *_common(installation, name, repository, secret, prefix, exit_timeout_s),
        f"--http-address=unix:{http}",
        f"--metrics-address=unix:{metrics}",
        f"--grpc-address=unix:{workers / name}.grpc",
        f"--grpc-port={_GRPC_PORT}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{SECRET_HEADER}={secret}",
    ]
    if device is not None:
        pool = _pool_bytes(device_mib)
        arguments += [f"--pinned-memory-pool-byte-size={pool}", f"--cuda-memory-pool-byte-size=0:{pool}"]
    else:
        arguments.append("--pinned-memory-pool-byte-size=0")
    if shared:
        arguments.append("--rate-limit=execution_count")
    return Command(
        argv=(str(installation.binary), *arguments),
        env={**installation.env, "CUDA_VISIBLE_DEVICES": device or "", RUN_DIR_VARIABLE: str(run_dir), **mps},
        address=str(http),
        metrics_address=str(metrics),
        grpc_address=f"unix:{grpc}",
        sockets=(http, metrics, grpc),
        ports=(),
        shm_prefix=prefix,
        secret=secret,
    )


def gateway_sockets(run_dir: Path) -> tuple[Path, Path]:
    """Sockets of a gateway behind the edge: HTTP, gRPC."""
    return run_dir / "gateway.http.sock", run_dir / f"gateway.grpc.sock:{_PRIVATE_GRPC_PORT}"


def gateway_command(
    installation: Installation,
    *,
    repository: Path,
    run_dir: Path,
    secret: str,
    address: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    behind_edge: bool = False,
    exit_timeout_s: int = 30,
) -> Command:
    """The tritonserver that clients talk to; it uses no GPU.

    Inference, health, metadata, configurations and statistics are open, as clients and perf_analyzer need them.

    Args:
        installation: What to run.
        repository: Model repository with fronts and pipelines; none is loaded at the start.
        run_dir: Run folder of the deployment, where fronts find the workers.
        secret: What the protocols that change the server are kept behind, over HTTP and gRPC.
        address: IP address to listen on; 0.0.0.0 for all.
        http_port: For clients.
        grpc_port: For clients.
        metrics_port: For Prometheus and the controller.
        behind_edge: Whether HTTP and gRPC are on Unix sockets, for the edge alone.
        exit_timeout_s: How long requests in flight and models may take to end after SIGTERM.

    Raises:
        InputError: The path of a folder is one that Triton cannot use.
        MissingDependencyError: The compiled backend is not built.
    """
    require_compiled_backend(installation)
    prefix = shm_prefix(run_dir, "gateway")
    http, grpc = gateway_sockets(run_dir)
    listening = [f"--http-address={address}", f"--http-port={http_port}", f"--grpc-address={address}"]
    listening.append(f"--grpc-port={grpc_port}")
    if behind_edge:
        _check_socket(grpc)
        path = str(grpc).removesuffix(f":{_PRIVATE_GRPC_PORT}")
        listening = [f"--http-address=unix:{http}", f"--grpc-address=unix:{path}", f"--grpc-port={_PRIVATE_GRPC_PORT}"]
    arguments = [
        *_common(installation, "gateway", repository, secret, prefix, exit_timeout_s),
        *listening,
        f"--grpc-restricted-protocol={_RESTRICTED}:{SECRET_HEADER}={secret}",
        f"--http-header-forward-pattern={FORWARDED_HEADERS}",
        f"--grpc-header-forward-pattern={FORWARDED_HEADERS}",
        f"--metrics-address={address}",
        f"--metrics-port={metrics_port}",
        "--pinned-memory-pool-byte-size=0",
    ]
    local = "127.0.0.1" if address == "0.0.0.0" else address
    ports = (metrics_port,) if behind_edge else (http_port, grpc_port, metrics_port)
    return Command(
        argv=(str(installation.binary), *arguments),
        env={
            **installation.env,
            "CUDA_VISIBLE_DEVICES": "",
            RUN_DIR_VARIABLE: str(run_dir),
            SECRET_VARIABLE: secret,
            SHM_PREFIX_VARIABLE: prefix,
            STACK_VARIABLE: str(GATEWAY_STACK_MIB),
        },
        address=str(http) if behind_edge else f"http://{local}:{http_port}",
        metrics_address=f"http://{local}:{metrics_port}",
        grpc_address=f"unix:{grpc}" if behind_edge else f"{local}:{grpc_port}",
        sockets=(http, grpc) if behind_edge else (),
        ports=tuple((address, port) for port in ports),
        shm_prefix=prefix,
        secret=secret,
    )


def with_input_limit(command: Command, version: str) -> Command:
    """A gateway of a release that limits what the JSON of a request may claim, with a limit that fits large tensors.

    Args:
        command: Command line of the gateway.
        version: Version of its tritonserver: `2.60.0`. Earlier ones, and unknown ones, have no such option.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _INPUT_LIMIT_SINCE:
        return command
    return replace(command, argv=(*command.argv, f"--http-max-input-size={_INPUT_LIMIT_MIB * 2**20}"))


def check_plain(folder: Path) -> None:
    """Refuses a folder that Triton's Python backend cannot have anything in: it names files to a shell, unquoted.

    Raises:
        InputError: There is a blank in its path, a quote, or anything else that means something to a shell.
    """
    if strange := _NOT_PLAIN.search(str(folder)):
        raise InputError(
            f"Triton's Python backend cannot have files in a folder with {strange.group()!r} in its path",
            where=str(folder),
            hint="choose another with --state or JIGSAW_STATE, and for what is fetched with JIGSAW_CACHE",
        )


def _common(
    installation: Installation, name: str, repository: Path, secret: str, prefix: str, exit_timeout_s: int
) -> Sequence[str]:
    if not _SECRET.fullmatch(secret):
        raise ValueError("a secret has at least 16 letters, digits, - and _")
    for folder in (repository, installation.backend_dir):
        check_plain(folder)
    return (
        f"--id={name}",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        f"--backend-directory={installation.backend_dir}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--http-restricted-api={_RESTRICTED}:{SECRET_HEADER}={secret}",
        # On MIG Triton's own reading of GPU metrics is wrong or fails.
        "--allow-gpu-metrics=false",
        "--allow-cpu-metrics=false",
        f"--exit-timeout-secs={exit_timeout_s}",
        "--log-format=ISO8601",
    )


def _pool_bytes(device_mib: int | None) -> int:
    """Of a worker's pool in its slice, and of as much pinned memory of the machine."""
    share = (device_mib or 0) // _POOL_SHARE
    return min(max(share, _POOL_LEAST_MIB), _POOL_MOST_MIB) * 2**20


def _check_socket(path: Path) -> None:
    size = len(str(path).encode())
    if size > _SOCKET_PATH_BYTES:
        raise InputError(
            f"the path of a Unix socket may have {_SOCKET_PATH_BYTES} bytes, this one has {size}",
            where=str(path),
            hint="choose a state directory with a shorter path",
        )
