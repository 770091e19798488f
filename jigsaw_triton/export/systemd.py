"""Units of systemd for a deployment on one machine, for the agent of a node, and for a front of cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from jigsaw_triton.export.commands import SUPERVISOR, Agent, Deploy, Front

NAME, AGENT_NAME, FRONT_NAME = "jigsaw-triton", "jigsaw-triton-agent", "jigsaw-triton-front"
"""Names of the units, and of the folders that systemd gives them."""

_HOMES = ("/home", "/root", "/run/user")
_CONTROL = 0x20
_MIG_CONFIG = "/proc/driver/nvidia/capabilities/mig/config"
_REPLACED = 77
"""Exit code of a controller that one on another machine has replaced (EX_NOPERM of sysexits.h)."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that a unit is for.

    Attributes:
        program: Absolute path of `jigsaw-triton`.
        python: Absolute path of the Python that it is installed in.
        user: User whom the servers run as.
        extra_paths: Absolute paths that the service reads beside the program.
        workers: True if workers run there; false for the machine of a controller whose workers have agents.
    """

    program: str
    python: str
    user: str
    extra_paths: tuple[str, ...] = ()
    workers: bool = True


def deployment_unit(host: Host, deploy: Deploy) -> str:
    """Returns the unit of a deployment on one machine, or of the controller of several."""
    mig = host.workers and deploy.gpus.driver == "nvml"
    run = command(host.program, *deploy.detached)
    names = ", ".join(deploy.demand) or "task graphs"
    service = [
        *_identity(host, NAME, mig=mig, preserve="restart"),
        "# The supervisor restarts the controller. The servers outlive both: the next controller adopts them.",
        f"ExecStart={command(host.python, *SUPERVISOR)} %S/{NAME}",
        "# Sends the deployment to the controller, and waits until it serves.",
        f"ExecStartPost={run}",
        "# `systemctl reload` updates the running deployment from the changed files, without losing a request.",
        f"ExecReload={run}",
        "# `systemctl stop` takes the deployment down. If the supervisor has died, MAINPID is unset, and the",
        "# servers go on.",
        f"""ExecStop=/bin/sh -c 'test -z "$$MAINPID" || exec "$$0" down' {command(host.program)}""",
        "TimeoutStartSec=15min",
        "TimeoutStopSec=3min",
        *_restarts(),
        "# A controller on another machine has replaced this one.",
        f"RestartPreventExitStatus={_REPLACED}",
        *_hardening(host, mig=mig),
    ]
    return _unit(
        (
            f"Runs a deployment on this machine. Install it as /etc/systemd/system/{NAME}.service, then:",
            f"  useradd --system --user-group --home-dir /var/lib/{NAME} {host.user}",
            f"  systemctl daemon-reload && systemctl enable --now {NAME}",
            f"/etc/{NAME}.env may set more options of `jigsaw-triton deploy`, such as JIGSAW_OBJECTIVE=accuracy.",
        ),
        f"jigsaw-triton: {names}",
        service,
    )


def agent_unit(host: Host, agent: Agent, driver: str) -> str:
    """Returns the unit of a node's agent.

    Args:
        host: The machine.
        agent: The agent.
        driver: MIG driver, which the controller names to the agent.
    """
    mig = driver == "nvml"
    service = [
        *_identity(host, AGENT_NAME, mig=mig, preserve="yes"),
        f"ExecStart={command(host.program, *agent.arguments)}",
        "TimeoutStopSec=1min",
        *_restarts(),
        *_hardening(host, mig=mig),
    ]
    return _unit(
        (
            f"Runs the agent of node {agent.name}. Install it as /etc/systemd/system/{AGENT_NAME}.service, then:",
            f"  useradd --system --user-group --home-dir /var/lib/{AGENT_NAME} {host.user}",
            f"  systemctl daemon-reload && systemctl enable --now {AGENT_NAME}",
            f"The user needs to read the certificates in {agent.certificates}.",
            "`systemctl stop` ends the agent alone; `jigsaw-triton down` on the controller's machine ends the servers.",
        ),
        f"jigsaw-triton: agent of node {agent.name}",
        service,
    )


def front_unit(host: Host, front: Front, *, low_ports: bool) -> str:
    """Returns the unit of a front.

    Args:
        host: The machine.
        front: The front.
        low_ports: True if the front listens on ports that only root may listen on otherwise.
    """
    service = [
        *_identity(host, FRONT_NAME, mig=False, preserve="restart"),
        "# If the main process dies, HAProxy goes on, and the next main process takes its place.",
        f"ExecStart={command(host.program, *front.arguments)}",
        "TimeoutStopSec=1min",
        *_restarts(),
        *_hardening(host, mig=False, servers=False, capabilities="CAP_NET_BIND_SERVICE" if low_ports else ""),
    ]
    return _unit(
        (
            f"Runs a front of cells. Install it as /etc/systemd/system/{FRONT_NAME}.service, then:",
            f"  useradd --system --user-group --home-dir /var/lib/{FRONT_NAME} {host.user}",
            f"  systemctl daemon-reload && systemctl enable --now {FRONT_NAME}",
            f"The user needs to read {front.file}, and the files that it names.",
            f"/etc/{FRONT_NAME}.env may set more options of `jigsaw-triton front`, such as JIGSAW_LOG_FORMAT=json.",
        ),
        "jigsaw-triton: front",
        service,
        gpus=False,
    )


def state_folder(name: str) -> str:
    """Returns the state folder of a unit, as systemd resolves it."""
    return f"/var/lib/{name}"


def command(*arguments: str) -> str:
    """Returns a command line in the syntax of ExecStart.

    Args:
        arguments: Program and arguments, without control characters.
    """
    return " ".join(map(_quoted, arguments))


def plain(text: str) -> bool:
    """Returns True if a text has no control characters, which a unit cannot contain in one line."""
    return all(ord(character) >= _CONTROL for character in text)


def runnable(path: str) -> bool:
    """Returns True if systemd runs a program with this path: one without quotes, backslashes and $."""
    return plain(path) and not set(path) & set("\"'\\$")


def _quoted(argument: str) -> str:
    # systemd expands % and $ itself, also in quotes.
    text = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    bare = bool(argument) and all(c.isalnum() or c in "/._-=,:+@[]" for c in argument)
    return text if bare else f'"{text}"'


def _identity(host: Host, name: str, *, mig: bool, preserve: str) -> Iterable[str]:
    yield from (
        "Type=exec",
        f"User={host.user}",
        f"StateDirectory={name}",
        "StateDirectoryMode=0700",
        f"CacheDirectory={name}",
        f"RuntimeDirectory={name}",
        "RuntimeDirectoryMode=0700",
        "# The sockets of servers that outlive the main process are there.",
        f"RuntimeDirectoryPreserve={preserve}",
        f"Environment=JIGSAW_STATE=%S/{name} JIGSAW_CACHE=%C/{name} XDG_RUNTIME_DIR=%t/{name}",
        f"EnvironmentFile=-/etc/{name}.env",
        "LimitNOFILE=1048576",
    )
    if mig:
        yield from (
            "# Changing MIG needs root, CAP_SYS_ADMIN, or NVIDIA's capability mig/config, which is a device file. The",
            "# last is the least: this lets the user's group read the file, and nothing else runs as root.",
            f'ExecStartPre=+/bin/sh -ec \'minor=$$(sed -n "s/^DeviceFileMinor: //p" {_MIG_CONFIG}); '
            f"file=/dev/nvidia-caps/nvidia-cap$$minor; test -e $$file || nvidia-modprobe -f {_MIG_CONFIG}; "
            f"chgrp {host.user} $$file; chmod 0440 $$file'",
        )


def _restarts() -> Iterable[str]:
    return (
        "# Only the main process is signalled: the servers outlive it.",
        "KillMode=process",
        "Restart=always",
        "RestartSec=5s",
    )


def _hardening(host: Host, *, mig: bool, servers: bool = True, capabilities: str = "") -> Iterable[str]:
    paths = (host.program, host.python, *host.extra_paths)
    in_homes = any(PurePosixPath(path).is_relative_to(home) for path in paths for home in _HOMES)
    yield from (
        "UMask=0077",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if in_homes else 'yes'}",
        "ProtectControlGroups=yes",
    )
    if servers:
        yield from (
            "# The Python backend of Triton needs a folder in /tmp. With PrivateTmp=, servers that outlive a start",
            "# would lose theirs.",
            "ReadWritePaths=/tmp",
        )
    if mig:
        yield from (
            "# CUDA and NVML create the device files of a new MIG instance through nvidia-modprobe, which is setuid",
            "# root. This rules out NoNewPrivileges=, the settings that imply it for a service with User= in some",
            "# releases of systemd (RestrictNamespaces=, SystemCallFilter= and others), an empty",
            "# CapabilityBoundingSet=, and PrivateDevices=.",
        )
    else:
        yield from (
            "NoNewPrivileges=yes",
            f"CapabilityBoundingSet={capabilities}",
            *((f"AmbientCapabilities={capabilities}",) if capabilities else ()),
            "PrivateDevices=yes",
            "ProtectKernelTunables=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelLogs=yes",
            "ProtectClock=yes",
            "ProtectHostname=yes",
            "RestrictSUIDSGID=yes",
            "RestrictRealtime=yes",
            "RestrictNamespaces=yes",
            "LockPersonality=yes",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "SystemCallArchitectures=native",
        )


def _unit(comments: Sequence[str], description: str, service: Iterable[str], *, gpus: bool = True) -> str:
    driver = (
        "# nvidia-persistenced loads the driver; where it is not installed, this has no effect.",
        "After=network-online.target nvidia-persistenced.service",
    )
    lines = [
        *(f"# {comment}" for comment in comments),
        "[Unit]",
        f"Description={description}",
        "Wants=network-online.target",
        *(driver if gpus else ("After=network-online.target",)),
        "",
        "[Service]",
        *service,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"
