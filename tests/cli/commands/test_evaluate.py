from tests.cli.conftest import Run


def test_the_help_of_the_group_lists_its_commands(run: Run) -> None:
    shown = run("evaluate", "--help").stdout
    assert all(name in shown for name in ("ablation", "rehearse", "replay", "trials"))
