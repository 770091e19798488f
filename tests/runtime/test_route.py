import json
import os
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.compiler import bundle
from jigsaw_triton.compiler.route import route_json
from jigsaw_triton.runtime.route import Route, RouteEntry, parse_route

GOOD: dict[str, Any] = {"worker": "a-0-1g-0", "model": "g.t.v.g1", "batch": 8, "slots": 2}


def write(path: Path, *entries: dict[str, Any]) -> None:
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps({"version": 1, "workers": entries}))
    fresh.rename(path)


def test_what_the_compiler_writes_is_what_is_read() -> None:
    text = route_json([bundle.RouteEntry("w1", "m1", 8, 2), bundle.RouteEntry("w2", "m2", 4, 1)]).decode()
    assert parse_route(text) == (RouteEntry("w1", "m1", 8, 2), RouteEntry("w2", "m2", 4, 1))


def test_an_address_beyond_the_host() -> None:
    text = json.dumps({"version": 1, "workers": [{**GOOD, "address": "10.0.0.2:8100"}]})
    assert parse_route(text)[0].address == "10.0.0.2:8100"


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    logged: list[str] = []
    path = tmp_path / "d.json"
    write(path, GOOD)
    route = Route(path, logged.append)
    assert route.refresh()
    assert [e.slots for e in route.entries] == [2]
    assert not route.refresh()

    write(path, {**GOOD, "slots": 3})
    assert route.refresh()
    assert [e.slots for e in route.entries] == [3]

    write(path, {**GOOD, "slots": 3})
    assert not route.refresh()
    assert logged == []


def test_an_unchanged_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write(path, GOOD)
    route = Route(path, lambda message: None)
    route.refresh()
    status = path.stat()
    path.write_text(path.read_text().replace("2}", "7}"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not route.refresh()
    assert route.entries[0].slots == 2


def test_a_malformed_file_keeps_the_old_entries_and_is_logged_once(tmp_path: Path) -> None:
    logged: list[str] = []
    path = tmp_path / "d.json"
    write(path, GOOD)
    route = Route(path, logged.append)
    route.refresh()
    path.write_text("{")
    assert not route.refresh()
    assert not route.refresh()
    assert len(route.entries) == 1
    assert len(logged) == 1
    assert "d.json cannot be read, keeping 1 entries" in logged[0]
    write(path)
    assert route.refresh()
    assert list(route.entries) == []


def test_a_missing_file_is_looked_for_again(tmp_path: Path) -> None:
    logged: list[str] = []
    route = Route(tmp_path / "d.json", logged.append)
    assert not route.refresh()
    assert not route.refresh()
    assert len(logged) == 1
    write(tmp_path / "d.json", GOOD)
    assert route.refresh()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "version is not 1"),
        ({"version": 2, "workers": []}, "version is not 1"),
        ({"version": 1}, "workers is not a list"),
        ({"version": 1, "workers": ["a"]}, r"workers\[0\] is not an object"),
        ({"version": 1, "workers": [GOOD, {**GOOD, "batch": 0}]}, r"workers\[1\].batch is not a positive integer: 0"),
        ({"version": 1, "workers": [{**GOOD, "slots": True}]}, "slots is not a positive integer"),
        ({"version": 1, "workers": [{**GOOD, "worker": "../x"}]}, "worker is not a name"),
        ({"version": 1, "workers": [{**GOOD, "model": ""}]}, "model is not a name"),
        ({"version": 1, "workers": [{**GOOD, "address": 5}]}, "address is not a string"),
        ({"version": 1, "workers": [{**GOOD, "weight": 5}]}, "weight"),
    ],
)
def test_what_is_wrong_is_said(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_route(json.dumps(data))
