"""Profiles for the commands that read them."""

from pathlib import Path

import pytest

from jigsaw_triton.profiles import estimation
from jigsaw_triton.profiles.read import HEADER


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """File of rows that are measured in part: there is none of a batch of 2 on two instances."""
    lines = [",".join(HEADER)]
    for instances in (1, 2):
        for batch in (1, 2, 4, 8):
            if (instances, batch) != (2, 2):
                p50 = instances * (2.0 + batch)
                rps = 1000 * instances * batch / p50
                lines.append(
                    f"cpu,average,exact,1g,{instances},{batch},{p50},{1.1 * p50},{1.2 * p50},{rps},200,measured"
                )
    file = tmp_path / "p.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the package fail to import scipy."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(estimation, "import_module", missing)
