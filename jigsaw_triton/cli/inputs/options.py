"""Declaration of commands, and the options that several of them share.

Every option can be set in the environment too: `--time-limit` is JIGSAW_TIME_LIMIT.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from jigsaw_triton.cli.inputs.option_types import Number, OutPath, OutputType
from jigsaw_triton.cli.io.output import FORMS
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, FORECASTS, LEAST_WINDOW_S, WINDOW_S
from jigsaw_triton.controller.core.settings import LEAST_PERIOD_S, PERIOD_S
from jigsaw_triton.logs import LOG_FORMATS
from jigsaw_triton.planner.domain.problem import OBJECTIVES, STANDBY_MODES

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


class Option(click.Option):
    """An option with an environment variable, which the help shows.

    Args:
        variable: Name of the variable, if another command has an option of the same name that means something else.
    """

    def __init__(self, param_decls: Sequence[str], *, variable: str = "", **attributes: Any) -> None:
        flag = next(text for text in param_decls if text.startswith("--")).split("/")[0]
        variable = variable or "JIGSAW_" + flag.removeprefix("--").replace("-", "_").upper()
        super().__init__(list(param_decls), envvar=variable, show_envvar=True, **attributes)


class Command(click.Command):
    """A command whose help ends with examples.

    Args:
        examples: Command lines without the program's name.
    """

    def __init__(self, *args: Any, examples: Sequence[str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, one on each line."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}jigsaw-triton {example}\n")


def option(*flags: str, **attributes: Any) -> Decorator[Any]:
    """Declares an option with an environment variable, like `click.option`."""
    return click.option(*flags, cls=Option, **attributes)


def together(*adds: Decorator[Any]) -> Decorator[Any]:
    """Returns a decorator that adds several options, in this order."""

    def decorate(function: Any) -> Any:
        for add in reversed(adds):
            function = add(function)
        return function

    return decorate


def log_format() -> Decorator[Any]:
    """Adds `--log-format` of a process that logs to its standard error."""
    return option(
        "--log-format",
        type=click.Choice(LOG_FORMATS),
        default=LOG_FORMATS[0],
        show_default=True,
        help="Write the lines of the log on standard error in this form.",
    )


def command(
    name: str, *, examples: Sequence[str], forms: Sequence[str] = FORMS
) -> Callable[[Callable[..., int | None]], Command]:
    """Makes a function a command with `-o/--output` and `--debug`.

    The function gets `out: Output` beside its own parameters. It may return an exit code; None stands for 0. Its
    docstring is the help.

    Args:
        name: Name of the command.
        examples: Command lines without the program's name.
        forms: Forms of output; the first is the default.
    """
    debug = Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an unexpected error.")
    output = Option(
        ["-o", "--output", "out"],
        type=OutputType(forms),
        default=forms[0],
        show_default=True,
        help="Format of the result on stdout.",
    )

    def decorate(function: Callable[..., int | None]) -> Command:
        made = click.command(name, cls=Command, examples=examples)(function)
        made.params += [output, debug]
        return made

    return decorate


def graphs(*, required: bool = True) -> Decorator[Any]:
    """Adds GRAPH...: graph.yaml files or their folders."""
    return click.argument("graphs", metavar="GRAPH...", nargs=-1, required=required, type=click.Path())


def graph() -> Decorator[Any]:
    """Adds GRAPH: a graph.yaml or its folder."""
    return click.argument("graph", metavar="GRAPH", type=click.Path())


def gpus() -> Decorator[Any]:
    """Adds --gpus and --cluster: the GPUs to plan for."""
    return together(
        option("--gpus", metavar="COUNTxMODEL,...", help="GPUs of one machine, such as 4xA100-80GB, or 2xcpu."),
        option("--cluster", metavar="FILE", type=click.Path(), help="cluster.yaml or its folder, instead of --gpus."),
    )


def cluster(*, driver: str = "nvml if a GPU answers, else emulated") -> Decorator[Any]:
    """Adds --gpus, --cluster and --driver: the GPUs to plan for and to run on.

    Args:
        driver: Default of --driver, as the help says it.
    """
    return together(
        gpus(),
        option(
            "--driver",
            type=click.Choice(("nvml", "emulated")),
            help=f"MIG driver, instead of the one in cluster.yaml.  [default: {driver}]",
        ),
    )


def demand(*, required: bool = True) -> Decorator[Any]:
    """Adds --demand: requests a second of the only graph, or by graph."""
    return option(
        "--demand",
        metavar="RPS|NAME=RPS",
        multiple=True,
        required=required,
        help="Requests a second to plan for; with several graphs NAME=RPS, repeated or separated by commas.",
    )


def state() -> Decorator[Any]:
    """Adds --state: the folder of a deployment."""
    return option(
        "--state",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Folder of the deployment.  [default: jigsaw-triton in ~/.local/state]",
    )


def time_limit() -> Decorator[Any]:
    """Adds --time-limit: seconds that the solver may take."""
    return option(
        "--time-limit",
        metavar="SECONDS",
        type=Number(min=0, min_open=True),
        default=10.0,
        show_default=True,
        help="Stop solving after this time, and take the best plan found.",
    )


def gap() -> Decorator[Any]:
    """Adds --gap: distance from the optimum that is accepted."""
    return option(
        "--gap",
        metavar="SHARE",
        type=Number(min=0, max=1, max_open=True),
        default=0.0,
        show_default=True,
        help="Accept this share of compute slices above the optimum, such as 0.005. Large plans are found sooner.",
    )


def share() -> Decorator[Any]:
    """Adds --share: models may share a slice."""
    return option("--share", is_flag=True, help="Let rarely called models share a slice and take turns on it.")


def change_price() -> Decorator[Any]:
    """Adds --change-price: compute slices that a change must save."""
    return option(
        "--change-price",
        metavar="SLICES",
        type=Number(min=0),
        default=0.0,
        show_default=True,
        help="Compute slices that a plan must save for each running MIG instance that it changes. With --objective "
        "accuracy: the accuracy that each slice and each change must gain.",
    )


def objective() -> Decorator[Any]:
    """Adds --objective: what the best plan is."""
    return option(
        "--objective",
        type=click.Choice(OBJECTIVES),
        default=OBJECTIVES[0],
        show_default=True,
        help="slices takes the fewest; accuracy takes the highest accuracy that the GPUs carry at the demand.",
    )


def standby() -> Decorator[Any]:
    """Adds --standby: lighter variants in the same slices take over bursts."""
    return option(
        "--standby",
        type=click.Choice(STANDBY_MODES),
        default=STANDBY_MODES[0],
        show_default=True,
        help="Load lighter variants in the same slices, where they fit, to take over bursts; or off.",
    )


def period() -> Decorator[Any]:
    """Adds --period: seconds between two reviews of the plan."""
    return option(
        "--period",
        "period_s",
        metavar="SECONDS",
        type=Number(min=LEAST_PERIOD_S),
        default=PERIOD_S,
        show_default=True,
        help="Seconds between two reviews of the plan, which save slices once the load has fallen.",
    )


def forecast() -> Decorator[Any]:
    """Adds --forecast and --window: the forecast of the load, and the seconds of load that it sees."""
    by_name = option(
        "--forecast",
        type=click.Choice(tuple(FORECASTS)),
        default=DEFAULT_FORECAST,
        show_default=True,
        help="Forecast of the load, from its peaks in the last --window seconds.",
    )
    window = option(
        "--window",
        "window_s",
        metavar="SECONDS",
        type=Number(min=LEAST_WINDOW_S),
        default=WINDOW_S,
        show_default=True,
        help="Seconds of load that the forecast sees.",
    )
    return together(by_name, window)


def plot(what: str) -> Decorator[Any]:
    """Adds --plot: a file to plot into.

    Args:
        what: Subject of the plot, for the help.
    """
    return option(
        "--plot",
        "plot_path",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help=f"Plot {what} into this .svg or .png file. Needs matplotlib.",
    )


def out_file(help_text: str, *, required: bool = False, name: str | None = None) -> Decorator[Any]:
    """Adds -O/--out: the path to write to.

    Args:
        help_text: Help of the option.
        required: True if the option must be given.
        name: Name of the file in a folder, if a folder can be given too.
    """
    return option("-O", "--out", "out_path", metavar="PATH", type=OutPath(name), required=required, help=help_text)
