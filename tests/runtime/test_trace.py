import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jigsaw_triton.runtime.trace import Call, Hop, Run, TraceFile, hop_from_json, run_from_json

CALL = Call("w", "m", "v", 1, 2, 0.5, 1.5, "answered", number=2**48)
HOP = Hop("7", "g", "t", "g.t.g1", 1000.0, 0.25, 2.0, "answered", "", (CALL,))
RUN = Run(("7",), (2**48,), "w", "m", 1000.001, 0.5, 2)


def test_written_records_can_be_read_back(tmp_path: Path) -> None:
    hops, runs = TraceFile(tmp_path / "a" / "hops"), TraceFile(tmp_path / "runs")
    hops.write(HOP, replace(HOP, request='"ä"\n', calls=()))
    runs.write(RUN)
    read = [hop_from_json(line) for line in (tmp_path / "a" / "hops").read_text().splitlines()]
    assert read == [HOP, replace(HOP, request='"ä"\n', calls=())]
    assert run_from_json((tmp_path / "runs").read_text()) == RUN
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("read", [hop_from_json, run_from_json])
@pytest.mark.parametrize(
    "line",
    ["", '{"requ', "[]", "{}", json.dumps({**asdict(HOP), "colour": "red"}), '{"ids": 1}', '{"ids": [], "tokens": 1}'],
)
def test_malformed_records_are_refused(read: object, line: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r".+"):
        read(line)


def test_a_full_file_is_rotated(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "f", limit_bytes=1000)
    for number in range(30):
        file.write(replace(RUN, items=number))
    paths = [path for path in (tmp_path / "f.1", tmp_path / "f") if path.exists()]
    kept = [run_from_json(line).items for path in paths for line in path.read_text().splitlines()]
    assert kept == list(range(kept[0], 30))
    assert kept[0] > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000


def test_an_unwritable_disk_raises_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    TraceFile(tmp_path / "file" / "below").write(RUN)
