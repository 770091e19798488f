from docs.generators.columns import columns
from jigsaw_triton.profiles.read import HEADER, OPTIONAL


def test_each_column_has_a_row_in_the_order_of_the_file() -> None:
    rows = columns().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [*HEADER, *OPTIONAL]
    assert rows[5] == "| `batch` | required | Batch size, at least 1. |"
    assert "Plans ignore rows with names that the graph does not have, and `profiles check` reports them." in rows[1]
    assert not [row for row in rows if "None" in row]
    assert rows[len(HEADER) + OPTIONAL.index("error")].endswith("such as 0.03. Empty if it is not known. |")
    assert rows[len(HEADER)].startswith("| `origin` | optional | Description of where the figures are from")
