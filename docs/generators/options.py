"""Options of the commands, as the program itself declares them."""

from collections.abc import Iterator

import click

from docs.generators.markdown import code, plain, table
from jigsaw_triton.cli.main import PROGRAM, program


def options(name: str) -> str:
    """Returns the usage and the options of a command, or of each command of a group.

    Args:
        name: Name of the command.
    """
    context = click.Context(program, info_name=PROGRAM)
    command = program.get_command(context, name)
    if command is None:
        raise LookupError(f"there is no command {name}")
    return "\n".join(_leaf(leaf) for leaf in _leaves(command, context))


def _leaves(command: click.Command, parent: click.Context) -> Iterator[click.Context]:
    """Yields the contexts of a command, or of the commands of a group."""
    context = click.Context(command, info_name=command.name, parent=parent)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _leaves(child, context)
    else:
        yield context


def _leaf(context: click.Context) -> str:
    usage = f"{context.command_path} {' '.join(context.command.collect_usage_pieces(context))}"
    found = (param for param in context.command.params if isinstance(param, click.Option) and not param.hidden)
    rows = (_row(option, context) for option in found)
    return f"```text\n{usage}\n```\n\n" + table(("option", "does", "default", "variable"), rows)


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    extra = option.get_help_extra(context)
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    flags = [*option.opts, *option.secondary_opts]
    names = ", ".join(code(flag + (value if flag == flags[-1] else "")) for flag in flags)
    text, _, default = (option.help or "").partition("  [default: ")
    default = default.removesuffix("]") or extra.get("default", "") or extra.get("required", "")
    return names, plain(text), plain(default), ", ".join(map(code, extra.get("envvars", ())))
