"""The tables in docs/reference/gpus.md agree with the catalog."""

from pathlib import Path

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import SLICES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "gpus.md").read_text()


def rows(header: str) -> dict[str, list[str]]:
    """Returns the other cells of each row by its first cell, for the table with this header."""
    lines = TEXT[TEXT.index(header) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.split(" ")[0].strip("`"): rest for first, *rest in cells}


def test_memory_table_matches_the_catalog() -> None:
    expected = {}
    for name, board in CATALOG.items():
        known = {kind: "-" if p.memory_mib is None else str(p.memory_mib) for kind, p in board.profiles.items()}
        mode = {"gpu-reset": "GPU reset", "immediate": "immediate"}[board.mode_change] if board.nvml_names else ""
        expected[name] = [*(known.get(kind, "") for kind in SLICES), mode]
    assert rows("| board |") == expected


def test_table_of_starts_matches_the_catalog() -> None:
    def words(name: str, kind: str) -> str:
        profile = CATALOG[name].profiles.get(kind)
        return f"{', '.join(map(str, profile.starts))}; takes {profile.memory_slices}" if profile else ""

    assert rows("| slice |") == {kind: [words("A100-80GB", kind), words("A30-24GB", kind)] for kind in SLICES}


def test_example_runs() -> None:
    example = TEXT.split("```python\n")[1].split("```")[0]
    exec(compile(example, "docs/reference/gpus.md", "exec"), {})
