"""`jigsaw-triton evaluate`: compares the planner with other systems, its features, and simulations with servers."""

import click

from jigsaw_triton.cli.commands.ablation import command as ablation
from jigsaw_triton.cli.commands.rehearse import command as rehearse
from jigsaw_triton.cli.commands.replay import command as replay
from jigsaw_triton.cli.commands.trials import command as trials


@click.group("evaluate")
def command() -> None:
    """Compare the planner with other systems, its features with each other, and simulations with servers."""


for _subcommand in (ablation, rehearse, replay, trials):
    command.add_command(_subcommand)
