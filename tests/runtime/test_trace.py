import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jigsaw_triton.runtime.trace import (
    LONGEST_ID,
    Call,
    Hop,
    Run,
    Sampler,
    TraceFile,
    hop_from_json,
    id_for_worker,
    is_of,
    joined,
    run_from_json,
)

CALL = Call("w", "m", "v", 1, 2, 0.5, 1.5, "answered", number=1)
HOP = Hop("7", "g", "t", "g.t.g1", 1000.0, 0.25, 2.0, 3, "answered", "", (CALL,))
RUN = Run(("7#1",), "w", "m", 1000.001, 0.5, 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    hops, runs = TraceFile(tmp_path / "a" / "hops"), TraceFile(tmp_path / "runs")
    hops.write(HOP, replace(HOP, request='"ä"\n', calls=()))
    runs.write(RUN)
    read = [hop_from_json(line) for line in (tmp_path / "a" / "hops").read_text().splitlines()]
    assert read == [HOP, replace(HOP, request='"ä"\n', calls=())]
    assert run_from_json((tmp_path / "runs").read_text()) == RUN
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("read", [hop_from_json, run_from_json])
@pytest.mark.parametrize("line", ["", '{"requ', "[]", "{}", json.dumps({**asdict(HOP), "colour": "red"}), '{"ids": 1}'])
def test_what_is_no_record_is_refused(read: object, line: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r".+"):
        read(line)


def test_a_full_file_is_begun_anew_and_the_one_before_kept(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "f", limit_bytes=1000)
    for number in range(30):
        file.write(replace(RUN, items=number))
    kept = [run_from_json(line).items for name in ("f.1", "f") for line in (tmp_path / name).read_text().splitlines()]
    assert kept == list(range(kept[0], 30))
    assert kept[0] > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000


def test_a_disk_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    TraceFile(tmp_path / "file" / "below").write(RUN)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_few_requests_are_all_chosen_and_those_without_an_id_never() -> None:
    sampler = Sampler(Clock(), most_per_s=3)
    assert sampler.choose(["", ""]) == {}
    assert sampler.choose(["", "a", "", "b"]) == {1: "a", 3: "b"}
    assert sampler.choose(["x" * (LONGEST_ID + 1)]) == {}


def test_of_many_requests_about_as_many_as_allowed_are_chosen() -> None:
    clock = Clock()
    sampler = Sampler(clock, most_per_s=20)
    counts = []
    for second in range(5):
        clock.now = float(second)
        counts.append(sum(len(sampler.choose([f"{second}-{number}"])) for number in range(1000)))
    assert counts[0] == 40
    assert all(5 <= count <= 40 for count in counts[1:])


def test_what_a_busy_instance_chooses_a_less_busy_one_chooses_too() -> None:
    clock = Clock()
    busy, quiet = Sampler(clock, most_per_s=20), Sampler(clock, most_per_s=20)
    for second in range(3):
        clock.now = float(second)
        all_ids = [f"{second}-{number}" for number in range(1000)]
        chosen, others = busy.choose(all_ids), quiet.choose(all_ids[::4])
    few = {name for name in chosen.values() if int(name.split("-")[1]) % 4 == 0}
    assert few
    assert few <= set(others.values())


@pytest.mark.parametrize(("request_id", "number"), [("7", 2), ("a,b", 2), ("8#1", 2)])
def test_the_id_at_a_worker_tells_request_and_call(request_id: str, number: int) -> None:
    told = id_for_worker(joined([request_id, "other"]), number)
    assert is_of(told, request_id, number)
    assert is_of(told, "other", number)
    assert not is_of(told, request_id, number + 1)
    assert not is_of(told, "another", number)
    assert not is_of("", request_id, number)
