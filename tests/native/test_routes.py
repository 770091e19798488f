"""Routes: the files that list the workers of a task, and their replacement while the gateway runs."""

import json

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.waiting import eventually


def test_a_new_route_takes_effect(bench: Bench) -> None:
    first, second = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b")
    front.ask({"X": column(1)})
    assert len(first.calls) == len(second.calls) == 1


def test_requests_wait_for_the_first_route(bench: Bench) -> None:
    front = bench.front()
    request = front.send({"X": column(1)})
    assert not request.ended(0.05)
    bench.worker()
    bench.route("w")
    assert request.wait()["Y"].item() == 2


def test_an_empty_route_fails_requests_at_their_deadline(bench: Bench) -> None:
    bench.route()
    outcome = bench.front(slo_ms=50).ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message == "task t: none of its 0 workers can be reached"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"version": 2, "workers": []}',
        '{"version": 3}',
        '{"version": 3, "epoch": -1, "workers": []}',
        '{"version": 3, "epoch": "2", "workers": []}',
        '{"version": 3, "workers": [{"worker": "../w", "model": "m", "batch": 1, "slots": 1}]}',
        '{"version": 3, "workers": [{"worker": "w", "model": "m", "batch": 0, "slots": 1}]}',
        '{"version": 3, "workers": [{"worker": "w", "model": "m", "batch": 1, "slots": 1, "generations": ["3"]}]}',
    ],
)
def test_a_damaged_route_keeps_the_previous_one(bench: Bench, text: str) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    specs.write_text(bench.run_dir, text)
    assert front.ask({"X": column(1)})["Y"].item() == 2
    assert front.ask({"X": column(1)})["Y"].item() == 2
    complaints = [line for line in bench.engine.logs if "cannot be read" in line]
    assert len(complaints) == 1
    assert complaints[0].startswith("error: route t cannot be read; its previous 1 entries stay in use")


def test_a_removed_route_keeps_the_previous_one(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    (bench.run_dir / "routes" / "t.json").unlink()
    assert front.ask({"X": column(1)})["Y"].item() == 2
    bench.worker("v")
    bench.route("v")
    assert front.ask({"X": column(1)})["Y"].item() == 2


def test_a_route_may_change_while_requests_are_in_flight(bench: Bench) -> None:
    workers = {name: bench.worker(name, lambda call: {"Y": call.inputs["X"]}) for name in "abc"}
    bench.route("a")
    front = bench.front()
    requests = []
    for turn in range(60):
        requests += front.send_many(5, {"X": column(turn)})
        bench.route(*"abc"[turn % 3 :], batch=1 + turn % 4, slots=1 + turn % 3)
    for n, request in enumerate(requests):
        assert request.wait()["Y"].item() == n // 5
    assert all(worker.calls for worker in workers.values())


def test_a_worker_that_moves_to_another_host_is_another_server(bench: Bench) -> None:
    worker = bench.worker("w")
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("w", remote=True)
    assert front.ask({"X": column(1)})["Y"].item() == 2
    assert worker.connections == 2


def test_connections_to_a_worker_that_left_the_route_are_closed(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a")
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b")
    front.ask({"X": column(1)})
    eventually(lambda: not any(thread.is_alive() for thread in worker._threads[1:]))


def test_a_route_states_its_version(bench: Bench) -> None:
    path = specs.write_route(bench.run_dir, specs.entry("w"))
    assert json.loads(path.read_text())["version"] == 3
