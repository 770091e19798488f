"""`jigsaw-triton logs`: prints the end of the logs."""

import time
from pathlib import Path

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.errors import InputError
from jigsaw_triton.logs import readable
from jigsaw_triton.servers.logfile import tail
from jigsaw_triton.spec.words import nearest

_POLL_S = 0.3


@options.command("logs", examples=("logs", "logs gateway -n 100", "logs node0-0-1g-0 --follow"))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.option(
    "-n",
    "--lines",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="Number of last lines to show of each log.",
)
@options.option("--follow", is_flag=True, help="Follow the logs until Ctrl-C.")
@options.state()
def command(out: Output, names: tuple[str, ...], lines: int, follow: bool, state: Path | None) -> int | None:
    """Show the end of the logs of the gateway, the controller and the workers. Without a NAME, show all.

    Logs are kept when the deployment is taken down.
    """
    deployment = Deployment(state)
    known = sorted(path.stem for path in deployment.paths.logs.glob("*.log"))
    if not known:
        raise deployment.missing()
    for name in names:
        if name not in known:
            raise InputError(f"there is no log '{name}'", where="NAME", hint=nearest(name, known, "logs"))
    chosen = list(names) or known
    logs = {name: tail(deployment.paths.log(name), lines) for name in chosen}
    prefix = len(chosen) > 1
    tails = [_shown(name, line, prefix=prefix) for name, log in logs.items() for line in log]
    out.result({"logs": logs}, *(["\n".join(tails)] if tails else []))
    if follow and not out.json:
        _follow(out, deployment, chosen, prefix=prefix)
    return None


def _follow(out: Output, deployment: Deployment, names: list[str], *, prefix: bool) -> None:
    sizes = {name: deployment.paths.log(name).stat().st_size for name in names}
    while True:
        for name in names:
            path = deployment.paths.log(name)
            size = path.stat().st_size
            if size < sizes[name]:  # The log was rotated.
                sizes[name] = 0
            if size > sizes[name]:
                with path.open("rb") as file:
                    file.seek(sizes[name])
                    text = file.read(size - sizes[name]).decode(errors="replace")
                sizes[name] = size
                out.raw("".join(f"{_shown(name, line, prefix=prefix)}\n" for line in text.splitlines()))
        time.sleep(_POLL_S)


def _shown(name: str, line: str, *, prefix: bool) -> str:
    return f"{name}: {readable(line)}" if prefix else readable(line)
