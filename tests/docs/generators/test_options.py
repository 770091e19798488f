import pytest

from docs.generators.options import options


def test_an_option_has_its_value_default_and_variable() -> None:
    rows = options("plan").splitlines()
    assert rows[1] == "jigsaw-triton plan [OPTIONS] GRAPH..."
    assert "| `--driver [nvml|emulated]` |" in "\n".join(rows)
    (limit,) = (row for row in rows if row.startswith("| `--time-limit SECONDS` |"))
    assert limit.endswith("| 10.0 | `JIGSAW_TIME_LIMIT` |")
    (demand,) = (row for row in rows if "`--demand" in row)
    assert "| required |" in demand


def test_a_default_in_the_help_is_in_its_column() -> None:
    (state,) = (row for row in options("status").splitlines() if row.startswith("| `--state DIR` |"))
    assert state == "| `--state DIR` | Folder of the deployment. | jigsaw-triton in ~/.local/state | `JIGSAW_STATE` |"


def test_each_command_of_a_group_has_its_options() -> None:
    text = options("mig")
    for name in ("list", "enable", "apply", "assert", "export"):
        assert f"jigsaw-triton mig {name} [OPTIONS]" in text


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(LookupError, match="no command plam"):
        options("plam")
