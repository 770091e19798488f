"""The program that is installed as `docker` or `podman`; it only understands flags of the form `--name=value`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

STATE = Path(os.environ["DOCKER_STANDIN"])
BACKENDS = {"python", "onnxruntime"}


def main(arguments: list[str]) -> int:
    """Runs a command and returns its exit status."""
    with (STATE / "calls").open("a") as calls:
        calls.write(f"{' '.join(arguments)}\n")
    match arguments:
        case ["run", *rest]:
            return run(rest)
        case ["--container", name, labels, *argv]:
            return supervise(name, labels.split(","), argv)
        case ["rm", "--force", *names]:
            return max([remove(name) for name in names if not name.startswith("-")], default=0)
        case ["ps", "--all", "--quiet", condition]:
            print(*containers(condition.removeprefix("--filter=")), sep="\n")
            return 0
        case ["inspect", "--format={{.State.Pid}}", name]:
            print(json.loads((STATE / f"{name}.json").read_text())["pid"])
            return 0
        case ["image", "inspect", image]:
            return 0 if image in images() else fail(f"No such image: {image}")
        case ["pull", image]:
            if "missing" in image:
                return fail(f"manifest for {image} not found: manifest unknown")
            (STATE / "images").write_text("".join(f"{name}\n" for name in (*images(), image)))
            return 0
    return fail(f"unknown command: {arguments}")


def images() -> list[str]:
    return (STATE / "images").read_text().splitlines()


def fail(message: str) -> int:
    print(f"Error response from daemon: {message}", file=sys.stderr)
    return 1


def run(arguments: list[str]) -> int:
    """Runs a container in the foreground and returns its exit status."""
    at = next(i for i, argument in enumerate(arguments) if not argument.startswith("-"))
    flags, image, argv = arguments[:at], arguments[at], arguments[at + 1 :]
    if image not in images():
        fail(f"No such image: {image}")
        print("See 'docker run --help'.", file=sys.stderr)
        return 125
    if "--entrypoint=/bin/sh" in flags:
        if "empty" in image:
            fail('exec: "/bin/sh": no such file or directory')
            return 127
        backends = BACKENDS if "bare" not in image else set()
        print("path=/opt/tritonserver/bin:/usr/bin", "version=2.51.0", "packages=/usr/lib/python3", sep="\n")
        python = {"old": "3.8", "snakeless": ""}.get(image, "3.10")
        print(f"python={python}", f"backends={' '.join(sorted(backends))}", sep="\n")
        return 0
    (name,) = values(flags, "--name")
    if (STATE / f"{name}.json").exists():
        return fail(f"Conflict. The container name {name} is already in use")
    # Most commands run no server, and are asked for often.
    from jigsaw_triton.servers.installation import find_installation

    installation = find_installation()

    def outside(text: str) -> str:
        text = text.replace("/opt/tritonserver/bin/tritonserver", str(installation.binary))
        return text.replace("/opt/tritonserver/backends", str(installation.backend_dir))

    passed = {name: os.environ[name] for name in values(flags, "--env") if "=" not in name}
    environment = dict(outside(text).split("=", 1) for text in values(flags, "--env") if "=" in text)
    supervisor = subprocess.Popen(
        [sys.executable, __file__, "--container", name, ",".join(values(flags, "--label")), *map(outside, argv)],
        env={**os.environ, **passed, **environment, **installation.env},
        start_new_session=True,
    )

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(json.loads((STATE / f"{name}.json").read_text())["pid"], number)

    signal.signal(signal.SIGTERM, forward)
    return supervisor.wait()


def values(flags: list[str], name: str) -> list[str]:
    return [flag.partition("=")[2] for flag in flags if flag.startswith(f"{name}=")]


def supervise(name: str, labels: list[str], argv: list[str]) -> int:
    """Runs the process of a container in the background, so that the container outlives its `docker run`."""
    process = subprocess.Popen(argv, start_new_session=True)
    file = STATE / f"{name}.json"
    file.with_suffix(".new").write_text(json.dumps({"pid": process.pid, "labels": labels}))
    file.with_suffix(".new").rename(file)
    status = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    file.unlink()
    return status & 0xFF


def remove(name: str) -> int:
    file = STATE / f"{name}.json"
    try:
        pid = json.loads(file.read_text())["pid"]
    except FileNotFoundError:
        return fail(f"No such container: {name}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    while file.exists():
        time.sleep(0.01)
    return 0


def containers(condition: str) -> list[str]:
    kind, _, wanted = condition.partition("=")
    found = []
    for file in STATE.glob("*.json"):
        labels = json.loads(file.read_text())["labels"]
        if (kind == "label" and wanted in labels) or (kind == "name" and wanted == f"^/?{file.stem}$"):
            found.append(file.stem)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
