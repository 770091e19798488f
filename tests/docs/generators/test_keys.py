import re

import pytest

from docs.generators.keys import keys
from jigsaw_triton.spec.json_schema import Kind


def row(table: str, key: str) -> list[str]:
    """Cells of the row of a key."""
    (line,) = re.findall(rf"^\| `{re.escape(key)}` \| .*$", table, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_a_key_has_its_values_its_default_and_its_description() -> None:
    assert row(keys("graph", "slo"), "percentile") == [
        "`percentile`",
        "number, above 0 and below 100",
        "`99`",
        "Share of the requests that keep the latency, in percent.",
    ]


@pytest.mark.parametrize(
    ("kind", "section", "key", "values", "default"),
    [
        ("graph", "slo", "latency_ms", "number, above 0", "required"),
        ("graph", "", "overload", "`refuse` or `queue`", "`refuse`"),
        ("graph", "", "priority", "whole number, -1000 to 1000", "`0`"),
        ("graph", "inputs", "dtype", "[data type](#tensors)", "required"),
        ("graph", "tasks", "counts", "mapping of at most 64", ""),
        ("graph", "tasks", "inputs.NAME.from", "text", "required"),
        ("graph", "tasks variants", "measured.n", "whole number, at least 1", "required"),
        ("cluster", "", "nodes[].gpus[].count", "whole number, 1 to 16384", "`1`"),
        ("cluster", "", "nodes[].agent", "host and port", ""),
        ("cluster", "", "gateway", "mapping", ""),
        ("cluster", "", "survive", "mapping or [name](#yaml)", ""),
        ("cluster", "", "edge", "mapping or `haproxy` or `none`", ""),
        ("cluster", "edge", "kind", "`haproxy`", "required"),
    ],
)
def test_values_and_defaults_are_those_of_the_models(
    kind: Kind, section: str, key: str, values: str, default: str
) -> None:
    assert row(keys(kind, *section.split()), key)[1:3] == [values, default]


def test_a_mapping_with_a_table_of_its_own_is_only_there() -> None:
    assert "`limits.body_mib`" in keys("cluster", "edge")
    assert "`edge.limits.body_mib`" not in keys("cluster")


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(LookupError, match="has no section slos"):
        keys("graph", "slos")
