"""Builds the command lines of tritonservers. Pure functions without side effects."""

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
"""Port that Triton appends to the gRPC address; for a Unix socket, it becomes the end of the path."""

_POOL_SHARE = 64
_POOL_LEAST_MIB, _POOL_MOST_MIB = 32, 512
"""Bounds on the size of Triton's pools for tensors in transit, which is otherwise a share of the slice's memory."""

GATEWAY_STACK_MIB = 256
"""Stack size of the gateway's threads. Triton 24.10 reads the body of an HTTP request with the content type of form
data, the default of curl and Python's urllib, into the stack of its thread. With the usual 8 MiB, 8 MB of body crash
the server."""

FORWARDED_HEADERS = "(?i)trace(parent|state)"
"""Headers that become parameters of inference requests: W3C's trace context."""

_PRIVATE_GRPC_PORT = 8001
"""Port that Triton appends to the path of the gateway's gRPC socket, as to any gRPC address."""

_INPUT_LIMIT_SINCE = (2, 60)
"""First release that has `--http-max-input-size`."""

_INPUT_LIMIT_MIB = 1024
"""Value of that option for the gateway: Triton's default of 64 MiB is less than a batch of images."""

_SECRET = re.compile(r"[A-Za-z0-9_-]{16,}")
_NOT_PLAIN = re.compile(r"[^\w./~@%+=:,-]")
"""Characters that may have a special meaning to a shell."""


@dataclass(frozen=True, slots=True)
class Command:
    """Command line, environment and addresses of a tritonserver.

    Attributes:
        argv: Program and arguments.
        env: Environment variables in addition to the inherited ones.
        address: Address of HTTP: the path of a socket or `http://host:port`.
        metrics_address: Address of /metrics in the same form; empty if it is not served.
        grpc_address: gRPC target through which models are loaded: `unix:` and a path, or `host:port`.
        sockets: Paths of the sockets on which it will listen.
        ports: (address, port) pairs on which it will listen.
        shm_prefix: Prefix of the names of its regions in /dev/shm.
        secret: Secret that calls of restricted protocols must send in `SECRET_HEADER`.
        argument_file: File that the library which it preloads (`native/preload`) reads for the arguments that end in
            `=@` and its path. It must exist while the server starts, and only its user may read it.
        container: Container in which it runs; None if it is a plain process.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    address: str
    metrics_address: str
    grpc_address: str
    sockets: tuple[Path, ...]
    ports: tuple[tuple[str, int], ...]
    shm_prefix: str
    secret: str = field(repr=False)
    argument_file: Path
    container: Container | None = None

    @property
    def file_content(self) -> str:
        """Text of the argument file: the protocols that need the secret, and the secret."""
        return f"{_RESTRICTED}:{SECRET_HEADER}={self.secret}"


def shm_prefix(run_dir: Path, name: str) -> str:
    """Returns the prefix, unique to a server of a deployment, of the names of its regions in /dev/shm."""
    # The digests of two servers differ and have the same length. The prefix of worker 1 can therefore not be the start
    # of that of worker 10.
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
    """Returns the command of a worker's tritonserver.

    It listens on Unix sockets in the run directory: for HTTP, for metrics, and for gRPC to load models.

    Args:
        installation: Tritonserver to run.
        name: Name of the worker.
        repository: Model repository of the worker; no model is loaded at the start.
        run_dir: Run directory of the deployment. The sockets in it are `workers/<name>.sock`,
            `workers/<name>.metrics.sock` and `workers/<name>.grpc:1`.
        secret: Secret that protects the protocols that can change the server.
        device: UUID of the MIG instance; None hides all GPUs.
        device_mib: Memory of the instance that the server may use; None if it is unknown.
        mps: Environment variables for clients of the instance's MPS daemon; empty if there is no daemon.
        shared: True if several models share the slice, so that instances that request the rate limiter's resource run
            in turns.
        exit_timeout_s: Seconds that requests in flight and models may take to end after SIGTERM.

    Raises:
        InputError: The path of a socket is too long, or Triton cannot use the path of a folder.
        MissingDependencyError: The compiled backend is not built.
    """
    workers = run_dir / "workers"
    http, metrics = workers / f"{name}.sock", workers / f"{name}.metrics.sock"
    grpc = workers / f"{name}.grpc:{_GRPC_PORT}"
    for path in (http, metrics, grpc):
        _check_socket(path)
    prefix = shm_prefix(run_dir, name)
    restriction = workers / f"{name}.restriction"
    # Triton appends default ports to the unix: addresses of HTTP in its log, but does not use them.
    arguments = [
        *_common(installation, name, repository, secret, restriction, prefix, exit_timeout_s),
        f"--http-address=unix:{http}",
        f"--metrics-address=unix:{metrics}",
        f"--grpc-address=unix:{workers / name}.grpc",
        f"--grpc-port={_GRPC_PORT}",
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
        argument_file=restriction,
    )


def gateway_sockets(run_dir: Path) -> tuple[Path, Path]:
    """Returns the HTTP and the gRPC socket of a gateway behind the edge."""
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
    """Returns the command of the gateway, the tritonserver that clients call. It uses no GPU.

    Inference, health, metadata, configurations and statistics are open, because clients and perf_analyzer need them.

    Args:
        installation: Tritonserver to run.
        repository: Model repository with fronts and pipelines; no model is loaded at the start.
        run_dir: Run directory of the deployment, in which fronts find the workers.
        secret: Secret that protects the protocols that can change the server, over HTTP and gRPC.
        address: IP address to listen on; 0.0.0.0 for all.
        http_port: HTTP port for clients.
        grpc_port: gRPC port for clients.
        metrics_port: Port for Prometheus and the controller.
        behind_edge: True to listen for HTTP and gRPC on Unix sockets, which only the edge uses.
        exit_timeout_s: Seconds that requests in flight and models may take to end after SIGTERM.

    Raises:
        InputError: Triton cannot use the path of a folder.
        MissingDependencyError: The compiled backend is not built.
    """
    prefix, restriction = shm_prefix(run_dir, "gateway"), run_dir / "gateway.restriction"
    http, grpc = gateway_sockets(run_dir)
    listening = [f"--http-address={address}", f"--http-port={http_port}", f"--grpc-address={address}"]
    listening.append(f"--grpc-port={grpc_port}")
    if behind_edge:
        _check_socket(grpc)
        path = str(grpc).removesuffix(f":{_PRIVATE_GRPC_PORT}")
        listening = [f"--http-address=unix:{http}", f"--grpc-address=unix:{path}", f"--grpc-port={_PRIVATE_GRPC_PORT}"]
    arguments = [
        *_common(installation, "gateway", repository, secret, restriction, prefix, exit_timeout_s),
        *listening,
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
        argument_file=restriction,
    )


def with_input_limit(command: Command, version: str) -> Command:
    """Raises the limit on the size of HTTP inputs, so that large tensors fit, in releases that have such a limit.

    Args:
        command: Command of the gateway.
        version: Version of its tritonserver. Versions before 2.60 and unknown ones do not have the option.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _INPUT_LIMIT_SINCE:
        return command
    return replace(command, argv=(*command.argv, f"--http-max-input-size={_INPUT_LIMIT_MIB * 2**20}"))


def is_plain(folder: Path) -> bool:
    """Returns True if no character of the path has a meaning to a shell."""
    return _NOT_PLAIN.search(str(folder)) is None


def check_plain(folder: Path) -> None:
    """Refuses a folder that Triton's Python backend cannot use, because it passes paths to a shell without quotes.

    Raises:
        InputError: The path has a space, a quote or another character with a meaning to a shell.
    """
    if special := _NOT_PLAIN.search(str(folder)):
        raise InputError(
            f"Triton's Python backend cannot use a folder with {special.group()!r} in its path",
            where=str(folder),
            hint="choose another folder with JIGSAW_CACHE for the cache, or with XDG_RUNTIME_DIR",
        )


def _common(
    installation: Installation,
    name: str,
    repository: Path,
    secret: str,
    restriction: Path,
    prefix: str,
    exit_timeout_s: int,
) -> Sequence[str]:
    require_compiled_backend(installation)
    if not _SECRET.fullmatch(secret):
        raise ValueError("a secret must consist of at least 16 letters, digits, '-' and '_'")
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
        # Triton takes the secret only as an argument, which all users of the machine can read. A server that does not
        # replace the path by the content of the file refuses the path and ends.
        f"--http-restricted-api=@{restriction}",
        f"--grpc-restricted-protocol=@{restriction}",
        # On MIG instances, Triton's GPU metrics are wrong or fail.
        "--allow-gpu-metrics=false",
        "--allow-cpu-metrics=false",
        f"--exit-timeout-secs={exit_timeout_s}",
        "--log-format=ISO8601",
    )


def _pool_bytes(device_mib: int | None) -> int:
    """Returns the size of a worker's memory pool in its slice, which is also that of its pool of pinned host memory."""
    share = (device_mib or 0) // _POOL_SHARE
    return min(max(share, _POOL_LEAST_MIB), _POOL_MOST_MIB) * 2**20


def _check_socket(path: Path) -> None:
    size = len(str(path).encode())
    if size > _SOCKET_PATH_BYTES:
        raise InputError(
            f"the path of a Unix socket may have at most {_SOCKET_PATH_BYTES} bytes, but this one has {size}",
            where=str(path),
            hint="choose a state directory with a shorter path",
        )
