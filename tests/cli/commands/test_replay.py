import json
import re
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

GPUS = ("--gpus", "1xcpu")
SYSTEMS = ("--system", "exact:AST", "--system", "paper:ats")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A minute at 10 requests a second, and one at 90."""
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{s},{10 if s < 60 else 90}\n" for s in range(120)))
    return path


def test_the_systems_are_rows_beside_the_published_figures(run: Run, app: Path, trace: Path) -> None:
    result = run("evaluate", "replay", app, "--trace", trace, *GPUS, *SYSTEMS, "--check")
    assert result.exit_code == 0, result.stderr
    ours, paper = (next(r for r in result.stdout.splitlines() if r.startswith(f"{name} A+S+T ")) for name in NAMES)
    assert ours.split()[-2:] == ["-", "-"]
    assert re.search(r"43\.3% +< 0\.6%$", paper)
    assert len(re.findall(r"first hour: .* violations, .* event by event; [+-]", result.stdout)) == 2


NAMES = ("exact", "paper")


def test_json_and_the_plot_have_the_run_of_each_system(run: Run, app: Path, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "replay.svg"
    result = run("evaluate", "replay", app, "--trace", trace, *GPUS, *SYSTEMS, "-o", "json", "--plot", picture)
    document = json.loads(result.stdout)
    ours, paper = document["systems"]
    assert (ours["formulation"], paper["formulation"]) == NAMES
    assert ours["requests"] == pytest.approx(paper["requests"])
    # The peak needs 85% of what the GPU carries. The paper's controller still serves the first minute's load.
    assert ours["violations"] < paper["violations"]
    assert [interval["from_s"] for interval in ours["intervals"]] == [0]
    assert "A+S+T" in picture.read_text()


def test_a_peak_excludes_a_scale(run: Run, app: Path, trace: Path) -> None:
    result = run("evaluate", "replay", app, "--trace", trace, *GPUS, "--peak", "0.5", "--scale", "2")
    assert (result.exit_code, "--peak and --scale exclude each other" in result.stderr) == (2, True)


@pytest.mark.parametrize("system", ["exact", "other:A", "paper:"])
def test_an_unknown_system_is_refused(run: Run, app: Path, trace: Path, system: str) -> None:
    result = run("evaluate", "replay", app, "--trace", trace, *GPUS, "--system", system)
    assert result.exit_code == 2
    assert f"{system!r} is no system" in result.stderr


@pytest.mark.parametrize("command", ["replay", "trials"])
def test_an_unknown_feature_of_a_system_is_refused(run: Run, app: Path, trace: Path, command: str) -> None:
    result = run("evaluate", command, app, "--trace", trace, *GPUS, "--system", "paper:AX")
    assert (result.exit_code, "'AX': X unknown" in result.stderr) == (2, True)


def test_the_forecast_is_that_of_this_projects_controller(
    run: Run, app: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []

    def stop(*_: object, forecast: str, window_s: float, **__: object) -> None:
        seen.append((forecast, window_s))
        raise InputError("stop here")

    monkeypatch.setattr("jigsaw_triton.cli.commands.replay.replay", stop)
    result = run("evaluate", "replay", app, "--trace", trace, *GPUS, "--forecast", "seasonal", "--window", "120")
    assert "stop here" in result.stderr
    assert seen == [("seasonal", 120.0)]
