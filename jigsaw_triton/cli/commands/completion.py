"""`jigsaw-triton completion`: prints the completion script of a shell."""

import click
from click.shell_completion import get_completion_class

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output

_SHELLS = ("bash", "zsh", "fish")


@options.command("completion", examples=("completion bash > ~/.jigsaw-completion.sh", "completion fish"))
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, out: Output, shell: str) -> None:
    """Print the completion script of a shell.

    To install it, put eval "$(jigsaw-triton completion bash)" into ~/.bashrc, or the same with zsh into ~/.zshrc. For
    fish, save the script as ~/.config/fish/completions/jigsaw-triton.fish.
    """
    root = ctx.find_root()
    program = root.info_name or "jigsaw-triton"
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(root.command, {}, program, f"_{program.replace('-', '_').upper()}_COMPLETE").source()
    out.result({"shell": shell, "script": script}, script)
