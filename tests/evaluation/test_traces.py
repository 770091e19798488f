from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.traces import Trace, read_trace


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_seconds_are_taken_as_they_are(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "second,requests\n0,7\n1,5\n2,0\n"))
    assert (trace.step_s, trace.seconds) == (1, 3)
    assert trace.scaled(2).counts(seed=1).tolist() == [14, 10, 0]


def test_arrivals_in_longer_intervals_are_poisson_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "bin,t_start_s,mean_rps,max_1s_rps\n0,0,50,73\n1,300,0,68\n"))
    counts = trace.counts(seed=3)
    assert len(counts) == trace.seconds == 600
    assert 48 < counts[:300].mean() < 52
    assert 40 < counts[:300].var() < 62
    assert counts[300:].sum() == 0
    assert (counts == trace.counts(seed=3)).all()
    assert (counts != trace.counts(seed=4)).any()


def test_a_faster_trace_has_the_mean_rates_of_the_time_that_it_skips() -> None:
    trace = Trace(1.0, np.array([10.0, 20.0, 30.0, 40.0, 90.0]))
    assert trace.faster(2.0).rps == pytest.approx([15, 35])
    assert trace.faster(1.0).rps == pytest.approx(trace.rps)
    assert trace.faster(2.5).rps == pytest.approx([(10 + 20 + 15) / 2.5, (15 + 40 + 90) / 2.5])
    assert Trace(2.0, np.array([10.0, 20.0])).faster(0.5).rps == pytest.approx([10] * 4 + [20] * 4)
    assert trace.faster(6.0).seconds == 0


def test_drawn_rates_are_poisson_and_depend_on_the_seed_alone() -> None:
    trace = Trace(1.0, np.repeat([50.0, 0.0], 1000))
    drawn = trace.drawn(3).rps
    assert 49 < drawn[:1000].mean() < 51
    assert 45 < drawn[:1000].var() < 55
    assert drawn[1000:].sum() == 0
    assert (drawn == trace.drawn(3).rps).all()
    assert (drawn != trace.drawn(4).rps).any()


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("", "no trace of at least two intervals", ""),
        ("second,rps\n0,1\n", "no trace of at least two intervals", ""),
        ("when,rps\n0,1\n1,1\n", "no trace of at least two intervals", ""),
        ("second,rps\n0,1\n1,many\n", "rps is 'many'", ":3"),
        ("second,rps\n0,-1\n1,1\n", "rps is '-1'", ":2"),
        ("second,rps\n0,1\n1,nan\n", "rps is 'nan'", ":3"),
        ("second,rps\n0,1\n1\n", "rps is None", ":3"),
        ("second,rps\n0,1\n0.5,1\n", "not whole seconds", ":3"),
        ("second,rps\n0,1\n1,1\n3,1\n", "this interval is 2 s long", ":4"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str, message: str, where: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as raised:
        read_trace(path)
    assert raised.value.where == f"{path}{where}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
