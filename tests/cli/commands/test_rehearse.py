"""The command `evaluate rehearse`, without servers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.api import rehearsing
from jigsaw_triton.api.rehearsing import Rehearsed
from jigsaw_triton.api.simulating import simulate
from jigsaw_triton.cli.commands import rehearse as module
from jigsaw_triton.evaluation.rehearsal.outcomes import RequestsBySecond
from jigsaw_triton.evaluation.rehearsal.record import Sample, operation
from jigsaw_triton.evaluation.traces import Trace
from tests.cli.conftest import Run
from tests.evaluation.rehearsal.test_record import BEGAN, revision

GPUS = ("--gpus", "1xcpu")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{second},20\n" for second in range(30)))
    return path


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces rehearsals by a made-up result. Returns the arguments of the last one."""
    given: dict[str, Any] = {}

    def fake(graphs: Any, _trace: Any, **options: Any) -> Rehearsed:
        given.update(options)
        simulated = simulate(graphs, Trace(1.0, np.full(24, 20.0)), gpus="1xcpu")
        late, refused, failed = np.zeros(24), np.zeros(24), np.zeros(24)
        late[0], refused[3], failed[3] = 2, 3, 1
        requests = {"hello": RequestsBySecond(np.full(24, 20.0), late, refused, failed)}
        samples = [Sample(-0.5, True, 2, 1, {"hello": 99.0}, {"hello": 1.0})]
        samples += [Sample(float(s), s > 4, 2, 2, {"hello": 99.0}, {"hello": 1.0}) for s in range(1, 24)]
        real = operation(requests, samples, [revision(2, 2.5)], began=BEGAN)
        return Rehearsed(real, requests, simulated, workers=2, lag_ms=25.0, host_load=3.5)

    monkeypatch.setattr(module, "rehearse", fake)
    return given


def test_the_table_shows_the_rehearsal_beside_the_simulation(
    run: Run, app: Path, trace: Path, rehearsed: dict[str, Any]
) -> None:
    result = run("evaluate", "rehearse", app, "--trace", trace, *GPUS, "--speed", "2", "--features", "AS")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("0:00") and "in 2.5 s" not in line]
    assert [row[0] for row in rows][:2] == ["0:00:00", "0:00:02"]
    assert rows[0][1:7] == ["40", "2", "0", "0", "5.00%", "0.00%"]
    assert rows[1][1:] == ["40", "0", "3", "1", "10.00%", "0.00%", "2.0", "1.0", "1", "(0)"]
    assert "0:00:02  5 slices, in 2.5 s: more load" in lines
    assert lines[-4:] == [
        "480 requests, up to 2 workers; host load 3.5 for each processor",
        "rehearsed: 1.250% violations; 2.0 slices on average; 1 changes",
        "simulated: 0.000% violations; 1.0 slices on average; 0 changes",
        "difference: +1.250 percentage points",
    ]
    assert "too busy: one of a hundred requests was sent 25 ms late" in result.stderr
    assert (rehearsed["speed"], rehearsed["options"].features) == (2.0, "AS")


def test_json_has_both_sides(run: Run, app: Path, trace: Path, rehearsed: dict[str, Any]) -> None:
    found = json.loads(run("evaluate", "rehearse", app, "--trace", trace, *GPUS, "-o", "json").stdout)
    assert found["requests"] == {"hello": {"sent": 480, "late": 2, "refused": 3, "failed": 1}}
    assert found["rehearsed"]["violation_share"] == 6 / 480
    assert found["simulated"]["violation_share"] == 0
    assert found["difference_points"] == pytest.approx(1.25)
    assert [change["generation"] for change in found["rehearsed"]["changes"]] == [2]
    assert len(found["intervals"]) == 12


@pytest.mark.slow
def test_a_plot_shows_both_sides(run: Run, app: Path, trace: Path, tmp_path: Path, rehearsed: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "run.svg"
    assert run("evaluate", "rehearse", app, "--trace", trace, *GPUS, "--plot", picture).exit_code == 0
    assert "hello: simulated" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--trace", "none.csv"), 2, "the trace cannot be read"),
        (("--trace", "other={trace}"), 2, "there is no such graph"),
        (("--trace", "{trace}", "--trace", "{trace}"), 2, "each trace needs the name of its graph"),
        (("--trace", "{trace}", "--speed", "0"), 2, "--speed"),
        (("--trace", "{trace}", "--speed", "31"), 2, "shorter than a second"),
        (("--trace", "{trace}", "--scale", "100000"), 3, "at most"),
        (("--trace", "{trace}", "--plot", "run.jpg"), 2, "must end in .svg or .png"),
        (("--trace", "{trace}", "--demand", "many"), 2, "many"),
        (("--trace", "{trace}", "--state", "{folder}"), 2, "this one is not empty"),
        (("--trace", "{trace}", "--state", "{trace}"), 2, "this one is not empty"),
        (("--trace", "{trace}", "--features", "X"), 2, "X"),
    ],
)
def test_mistakes_are_refused_before_a_server_starts(
    run: Run,
    app: Path,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(rehearsing, "Deployment", None)
    given = (text.format(trace=trace, folder=tmp_path) for text in arguments)
    result = run("evaluate", "rehearse", app, *GPUS, *given)
    assert result.exit_code == code, result.stderr
    assert message in result.stderr


def test_a_cluster_with_an_edge_is_refused(
    run: Run, app: Path, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsing, "Deployment", None)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  edge: haproxy\n"
        "  nodes: [{name: local, gpus: [{model: cpu}]}]\n"
    )
    result = run("evaluate", "rehearse", app, "--trace", trace, "--cluster", cluster)
    assert result.exit_code == 2
    assert "a rehearsal has no edge" in result.stderr
