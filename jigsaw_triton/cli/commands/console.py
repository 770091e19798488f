"""`jigsaw-triton console`: runs the web console of a deployment."""

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.console.web.process import run_console
from jigsaw_triton.console.web.running import OpenConsole, running_console, stop_console
from jigsaw_triton.console.web.settings import LOOPBACK, PORT, ConsoleSettings, read_password
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import StateError

_FLAGS = {
    "port": "--port",
    "address": "--address",
    "allow_changes": "--allow-changes",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
    "password": "--password-file",
    "hosts": "--host",
    "behind_proxy": "--behind-proxy",
}
"""Attribute of `ConsoleSettings` -> the option that sets it."""

_KILLED = "the console did not answer, and was killed"


@options.command(
    "console",
    examples=(
        "console",
        "console --port 8090 --allow-changes",
        "console --stop",
        "console --address 0.0.0.0 --host gpu1.example.org --tls-cert cert.pem --tls-key key.pem --password-file pw",
    ),
)
@options.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on.",
)
@options.option(
    "--address",
    variable="JIGSAW_CONSOLE_ADDRESS",
    default=LOOPBACK,
    show_default=True,
    help="IP address to listen on. One that other machines reach needs TLS and a password, or --behind-proxy.",
)
@options.option(
    "--allow-changes",
    is_flag=True,
    help="Let the pages pause, resume, roll back and cordon. Without it, they change nothing.",
)
@options.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate of the console, as a PEM file.")
@options.option("--tls-key", type=click.Path(path_type=Path), help="Private key of the certificate, as a PEM file.")
@options.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="Ask for the password in the first line of this file, instead of printing a URL that works once.",
)
@options.option(
    "--host", "hosts", multiple=True, help="Accept this host name of the machine or its proxy; may be repeated."
)
@options.option(
    "--behind-proxy",
    is_flag=True,
    help="Allow any address without TLS and a password, since a proxy in front encrypts and authenticates.",
)
@options.option("--stop", is_flag=True, help="End the console that is running. The deployment goes on.")
@options.state()
def command(
    out: Output,
    port: int,
    address: str,
    allow_changes: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    password_file: Path | None,
    hosts: tuple[str, ...],
    behind_proxy: bool,
    stop: bool,
    state: Path | None,
) -> None:
    """Run the web console of the deployment until Ctrl-C, or print a new URL of the one that is running.

    The console shows the GPUs, the graph, the load, the plan, events, logs and traces. It is a process of its own: it
    goes on while the controller is restarted, and shows since when what it shows is stale. The printed URL opens the
    console in one browser.
    """
    paths, given = deployment_paths(state), _given()
    if stop:
        if given:
            raise click.UsageError(f"--stop ends the running console; omit {', '.join(given)}.")
        ended = stop_console(paths)
        out.result({"ended": True, "killed": not ended}, "the console has ended" if ended else _KILLED)
        return
    settings = ConsoleSettings(
        address=address,
        port=port,
        allow_changes=allow_changes,
        tls_cert=tls_cert,
        tls_key=tls_key,
        password=None if password_file is None else read_password(password_file),
        hosts=hosts,
        behind_proxy=behind_proxy,
    )
    if (running := running_console(paths)) is not None:
        _check_same(running, settings, given, paths.state)
        out.note("the console is running already; this URL opens it, and `jigsaw-triton console --stop` ends it")
        out.result({"url": running.url}, running.url)
        return

    def announce(opening: str) -> None:
        out.note("the console is running; end it with Ctrl-C. This URL opens it")
        out.result({"url": opening}, opening)
        # The command keeps running, and its caller may read the URL through a pipe.
        sys.stdout.flush()

    run_console(paths, settings, announce)


def _given() -> list[str]:
    """Returns the options of the console on the command line."""
    context = click.get_current_context()
    names = {"password": "password_file"}
    return [
        flag
        for attribute, flag in _FLAGS.items()
        if context.get_parameter_source(names.get(attribute, attribute)) is ParameterSource.COMMANDLINE
    ]


def _check_same(running: OpenConsole, settings: ConsoleSettings, given: list[str], where: Path) -> None:
    """Checks that the running console has the options that the user has set.

    Raises:
        StateError: The running console has other options.
    """
    asked = settings.to_json()
    differ = [
        flag
        for attribute, flag in _FLAGS.items()
        if flag in given and running.options.get(attribute, asked[attribute]) != asked[attribute]
    ]
    if differ:
        port = running.options["port"]
        raise StateError(
            f"the console is running already, on port {port}, with another value of {', '.join(differ)}",
            where=str(where),
            hint="end it with `jigsaw-triton console --stop`, and run this command again",
        )
