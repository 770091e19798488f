"""The command line: `jigsaw-triton COMMAND ...`. Each command is a module of `cli.commands`.

The module of a command is imported when the command runs, so that `--help` and shell completion are fast.
"""

import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from jigsaw_triton import __version__
from jigsaw_triton.cli.io import failure
from jigsaw_triton.spec.words import nearest

PROGRAM = "jigsaw-triton"
_GARBAGE = 20_000
"""New objects among which Python looks for garbage. With its usual 700 this is a tenth of a command's start, since most
objects of the modules live until the end."""

COMPLETE_VARIABLE = "_JIGSAW_TRITON_COMPLETE"
"""Environment variable that the completion script of a shell sets."""

INTERRUPTED = 130
TERMINATED = 143
"""Exit codes for SIGINT and SIGTERM, as in shells."""

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Applications": {
        "init": "Create an application, from a ready one or from scratch.",
        "fetch": "Fetch the model files of an application.",
        "add": "Add models to a graph as variants of a task.",
        "variants": "Make variants of an ONNX model, and add them to its task.",
        "validate": "Check graphs, profiles and clusters.",
        "show": "Draw a graph.",
        "templates": "List the kinds of models that can be served.",
    },
    "Plans": {
        "profile": "Measure the variants of a graph, and write profiles.csv.",
        "profiles": "Check, fit and import profiles.",
        "plan": "Choose variants, slices and GPUs for a demand.",
        "capacity": "Find the largest demand that a cluster can serve.",
        "compile": "Write the model repositories of a plan.",
        "simulate": "Simulate a deployment over a trace of arrivals.",
        "evaluate": "Compare the planner with other systems, and simulations with servers.",
    },
    "Deployments": {
        "deploy": "Deploy graphs, or update the running deployment.",
        "status": "Show the state of the deployment.",
        "history": "List the generations of the deployment.",
        "rollback": "Return to an earlier generation.",
        "pause": "Stop following the measured load.",
        "resume": "Follow the measured load again.",
        "events": "Show the events of the deployment.",
        "logs": "Show the end of the servers' logs.",
        "trace": "Show where the time of a request went.",
        "console": "Run the web console of the deployment.",
        "report": "Write a report about the deployment, or about a result, as one HTML file.",
        "node": "List the machines of the deployment, and withdraw or return one.",
        "takeover": "Start the controller on the machine of the standby gateway.",
        "down": "Stop the deployment, and destroy its MIG instances.",
        "bench": "Measure a running graph with perf_analyzer.",
        "export": "Write files for systemd, Compose, Kubernetes or Envoy.",
        "cells": "Deploy a cluster as several cells, each with a gateway of its own.",
        "front": "Run HAProxy over the gateways of cells.",
    },
    "This machine": {
        "agent": "Run the agent of a machine, for a controller on another one.",
        "mig": "List and change the MIG instances of GPUs.",
        "certificates": "Create the certificates of a deployment's nodes.",
        "doctor": "Check this machine for everything that a deployment needs.",
        "completion": "Print the completion script of a shell.",
    },
}
"""Heading in the help -> command -> summary. A command is the function `command` of the module with its name."""


class Program(click.Group):
    """The group of all commands. It exits with the code that stands for the outcome."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order of the help."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; returns None if there is no command of this name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{__package__}.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command that the arguments begin with.

        Raises:
            UsageError: There is no such command.
        """
        if args[0] not in self.list_commands(ctx):
            ctx.fail(f"There is no command '{args[0]}'; {nearest(args[0], self.list_commands(ctx), 'commands')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands in the help, without importing a command."""
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Returns the commands and options that begin with a text, without importing a command."""
        options = click.Command.shell_complete(self, ctx, incomplete)
        words = {name: text for section in COMMANDS.values() for name, text in section.items()}
        return [CompletionItem(n, help=text) for n, text in words.items() if n.startswith(incomplete)] + options

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Runs the program and exits. It raises nothing but `SystemExit`.

        A command may return an exit code; None stands for 0.
        """
        given = list(sys.argv[1:] if args is None else args)
        extra |= {"prog_name": PROGRAM, "complete_var": COMPLETE_VARIABLE, "standalone_mode": False}
        try:
            status = super().main(given, **extra)
            sys.stdout.flush()
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # click does the same if a command's own write fails. This error came from output that was still buffered;
            # without a new target the interpreter would fail again when it flushes the buffer at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            sys.exit(failure.report(error, failure.ErrorFormat.of(given, os.environ)))
        sys.exit(status if isinstance(status, int) else 0)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Ends the program with an exception, so that cleanup code runs."""
    sys.exit(TERMINATED)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Serve compound AI systems on NVIDIA Triton and MIG.

    jigsaw-triton turns a task graph with latency and accuracy targets into running tritonservers on partitioned GPUs.
    Start with `jigsaw-triton doctor` and `jigsaw-triton init DIR`.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Runs the program; the script `jigsaw-triton` calls it."""
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(_GARBAGE)
    program.main()


if __name__ == "__main__":
    main()
