"""Epochs of controllers: the gateway refuses routes of a controller that another one has replaced."""

from pathlib import Path

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Engine
from tests.waiting import eventually

REFUSED = "route t is refused: it is of controller epoch 4, but a controller of epoch 5 has taken over"


def published(run_dir: Path) -> str:
    """Returns the highest epoch in the file of an engine; empty if there is none."""
    path = run_dir / "epoch"
    return path.read_text() if path.exists() else ""


def test_a_route_of_an_earlier_epoch_is_refused_once_and_the_previous_one_stays(bench: Bench) -> None:
    first, second = bench.worker("a"), bench.worker("b")
    bench.route("a", epoch=5)
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b", epoch=4)
    for _ in range(2):
        front.ask({"X": column(1)})
    assert (len(first.calls), len(second.calls)) == (3, 0)
    complaints = [line for line in bench.engine.logs if "refused" in line]
    assert complaints == [f"error: {REFUSED}; its previous 1 entries stay in use"]


@pytest.mark.parametrize("epoch", [5, 6, None])
def test_a_route_of_the_same_or_a_later_epoch_or_of_none_takes_effect(bench: Bench, epoch: int | None) -> None:
    bench.worker("a")
    second = bench.worker("b")
    bench.route("a", epoch=5)
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b", epoch=epoch)
    front.ask({"X": column(1)})
    assert len(second.calls) == 1


def test_a_later_epoch_in_one_route_ends_the_earlier_one_for_all(bench: Bench) -> None:
    first, second = bench.worker("a"), bench.worker("b")
    bench.route("a", epoch=4)
    front = bench.front()
    bench.route("a", name="other", epoch=5)
    bench.engine.front(specs.spec([specs.task("other")], outputs={"Y": ("other.Y", specs.ONE)}))
    bench.route("b", epoch=4)
    front.ask({"X": column(1)})
    assert (len(first.calls), len(second.calls)) == (1, 0)


def test_a_front_whose_route_is_refused_cannot_be_loaded(bench: Bench) -> None:
    bench.worker("a")
    bench.route("a", name="other", epoch=5)
    bench.engine.front(specs.spec([specs.task("other")], outputs={"Y": ("other.Y", specs.ONE)}))
    bench.route("a", epoch=4)
    with pytest.raises(ValueError, match=REFUSED):
        bench.front()
    bench.route("a", epoch=5)
    assert bench.front().ask({"X": column(1)})["Y"].item() == 2


def test_an_idle_gateway_notices_a_new_epoch(bench: Bench) -> None:
    bench.route("a", epoch=4)
    bench.front()
    assert published(bench.run_dir) == "4"
    bench.route("a", epoch=5)
    eventually(lambda: published(bench.run_dir) == "5")


def test_the_next_process_of_the_gateway_knows_the_epoch(bench: Bench) -> None:
    bench.route("a", epoch=5)
    bench.front()
    bench.route("a", epoch=4)
    with Engine(bench.run_dir) as again, pytest.raises(ValueError, match=REFUSED):
        again.front(specs.spec())


@pytest.mark.parametrize("text", ["", "x", "-7", "9" * 30])
def test_a_damaged_epoch_is_replaced_by_that_of_the_routes(run_dir: Path, text: str) -> None:
    (run_dir / "epoch").write_text(text)
    specs.write_route(run_dir, specs.entry("a"), epoch=5)
    with Engine(run_dir) as engine:
        engine.front(specs.spec())
        assert published(run_dir) == "5"
