import pytest

from docs.generators.metrics import Metric, rewritten

BUSY = Metric("jigsaw_slots_busy", "gauge", ("graph", "task"), "Slots in use.")
UP = Metric("jigsaw_gateway_up", "gauge", (), "1 if the gateway runs.")


def test_rows_say_what_the_code_says_and_stay_in_their_tables() -> None:
    text = "# Metrics\n\n| `jigsaw_gateway_up` | |\n\nText.\n\n| `jigsaw_slots_busy` | counter | | Old. |\n"
    assert rewritten(text, [BUSY, UP]) == (
        "# Metrics\n\n| `jigsaw_gateway_up` | gauge | | 1 if the gateway runs. |\n\nText.\n\n"
        "| `jigsaw_slots_busy` | gauge | `graph`, `task` | Slots in use. |\n"
    )


@pytest.mark.parametrize(
    "text", ["", "| `jigsaw_slots_busy` | |\n" * 2, "| `jigsaw_slots_busy` | |\n| `jigsaw_x` | |\n"]
)
def test_each_metric_has_one_row(text: str) -> None:
    with pytest.raises(LookupError, match="must be a metric with one row"):
        rewritten(text, [BUSY])
