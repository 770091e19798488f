"""Messages that pages get while a controller works, is restarted, or has too much to say."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from jigsaw_triton.console.web import feed as module
from jigsaw_triton.console.web.feed import Feed, Page
from tests.console.web.test_measured import text as metrics_text
from tests.fakes.live import FakeLive, event, frames
from tests.waiting import WAIT_LIMIT_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_GAP_S", 0.0)
    monkeypatch.setattr(module, "_SCRAPE_S", 0.01)
    yield


class Reader:
    """A page that keeps what it gets."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.got: list[tuple[str, Any]] = []

    async def until(self, kind: str, holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """Reads until an event of a kind holds, and returns its data."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            while True:
                message = await self._page.next()
                assert message is not None
                found = frames(message)
                self.got += found
                for got, data in found:
                    if got == kind and holds(data):
                        return data


def run(ask: Callable[[FakeLive, Feed], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        live = FakeLive()
        feed = Feed(live)
        try:
            await ask(live, feed)
        finally:
            await feed.close()

    asyncio.run(all_of_it())


def test_a_page_gets_the_state_first_and_then_what_changes() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        with feed.page() as page:
            reader = Reader(page)
            state = await reader.until("state")
            assert state["deployment"] == {"state": "ready", "generation": 1}
            live.change(deployment={"state": "changing", "generation": 1}, change={
                "from": 1, "to": 2, "why": "load", "stages": ["x", "y"], "at": 0, "moves": [],
            })  # fmt: skip
            patch = await reader.until("patch")
            assert patch["deployment"] == {"state": "changing"}
            assert patch["change"]["stages"] == ["x", "y"]
            assert patch.keys() == {"now", "deployment", "change"}
            live.change(deployment={"state": "ready", "generation": 2}, change=None)
            patch = await reader.until("patch")
            assert (patch["deployment"], patch["change"]) == ({"state": "ready", "generation": 2}, None)
        assert [kind for kind, _ in reader.got] == ["state", "patch", "patch"]

    run(ask)


def test_events_and_samples_that_come_later_are_sent() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        live.events = [event(7, "before the page")]
        with feed.page() as page:
            reader = Reader(page)
            state = await reader.until("state")
            live.events.append(event(8, "<b>later</b>"))
            assert (await reader.until("event"))["text"] == "<b>later</b>"
            live.samples.append({"t": state["now"] + 1, "slices": 2, "graphs": {}})
            assert (await reader.until("sample"))["slices"] == 2

    run(ask)


def test_a_sample_is_the_present_load_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        live.change(graphs={"g": {"arrivals_rps": None, "tasks": {}, "edges": []}})
        with feed.page() as page:
            reader = Reader(page)
            state = await reader.until("state")
            load = {"arrivals_rps": 5.0, "served_rps": 5.0}
            live.samples.append({"t": state["now"] + WAIT_LIMIT_S, "slices": 2, "graphs": {"g": load}})
            assert (await reader.until("patch"))["graphs"]["g"]["arrivals_rps"] == 5.0
            monkeypatch.setattr(module, "WINDOW_S", -2 * WAIT_LIMIT_S)
            assert (await reader.until("patch"))["graphs"]["g"]["arrivals_rps"] is None

    run(ask)


def test_all_pages_together_ask_the_controller_once_and_nobody_asks_without_pages() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        with feed.page() as first, feed.page() as second:
            one, other = Reader(first), Reader(second)
            await one.until("state")
            await other.until("state")
            live.change(gateway={"state": "ready"})
            assert (await one.until("patch")) == (await other.until("patch"))
            with feed.page() as late:
                assert (await Reader(late).until("state"))["gateway"] == {"state": "ready"}
        asked = live.questions
        await asyncio.sleep(0.05)
        assert live.questions <= asked + 1

    run(ask)


def test_a_page_shows_since_when_no_controller_answers_and_goes_on_with_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.01)

    async def ask(live: FakeLive, feed: Feed) -> None:
        with feed.page() as page:
            reader = Reader(page)
            state = await reader.until("state")
            live.gone = True
            stale = await reader.until("stale")
            assert state["now"] - 1 <= stale["since"]
            with feed.page() as late:
                other = Reader(late)
                assert (await other.until("state"))["deployment"]["generation"] == 1
                assert (await other.until("stale"))["since"] == stale["since"]
            live.run, live.gone = 2, False
            live.change(deployment={"state": "ready", "generation": 9})
            assert (await reader.until("stale"))["since"] is None
            assert (await reader.until("patch"))["deployment"] == {"generation": 9}

    run(ask)


def test_a_page_opens_while_there_is_no_controller() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        live.gone = True
        with feed.page() as page:
            reader = Reader(page)
            assert (await reader.until("state"))["deployment"]["state"] == "absent"
            assert (await reader.until("stale"))["since"] is not None

    run(ask)


def test_an_answer_that_cannot_be_shown_counts_as_none(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        live.change(graphs={"g": "of another release"})
        with feed.page() as page:
            await Reader(page).until("stale")

    run(ask)
    assert "cannot be shown" in caplog.text


def test_ten_thousand_events_reach_a_page_that_reads_and_another_gets_the_state_again() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        with feed.page() as page, feed.page() as slow:
            reader, sleeper = Reader(page), Reader(slow)
            await reader.until("state")
            await sleeper.until("state")
            for number in range(1, 101):
                live.events += [event(100 * number + n, "x" * 50) for n in range(100)]
                await reader.until("event", lambda got: bool(got["id"] == live.events[-1]["id"]))
            assert sum(kind == "event" for kind, _ in reader.got) == 10_000
            live.change(gateway={"state": "ready"})
            await reader.until("patch")
            await sleeper.until("state")
            await sleeper.until("patch", lambda patch: "gateway" in patch)
            assert sum(kind == "event" for kind, _ in sleeper.got) < 10_000

    run(ask)


def test_tasks_are_measured_from_the_gateway() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        graph: dict[str, Any] = {"arrivals_rps": None, "tasks": {"a": {"variants": {}}}, "edges": []}
        live.change(graphs={"g": graph}, gateway={"state": "ready", "metrics": "http://gateway/metrics"})
        live.metrics_text = metrics_text
        with feed.page() as page:
            reader = Reader(page)
            await reader.until("state")
            patch = await reader.until("patch", lambda p: "graphs" in p)
            assert patch["graphs"]["g"]["tasks"]["a"]["measured"]["rate_rps"] > 0

    run(ask)


def test_metrics_that_cannot_be_read_end_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        asked = asyncio.Event()

        def broken(_: int) -> str:
            asked.set()
            raise AttributeError("no such metric")

        live.metrics_text = broken
        live.change(gateway={"state": "ready", "metrics": "http://gateway/metrics"})
        with feed.page() as page:
            reader = Reader(page)
            await reader.until("state")
            async with asyncio.timeout(WAIT_LIMIT_S):
                await asked.wait()
            live.change(deployment={"state": "ready", "generation": 2})
            assert (await reader.until("patch"))["deployment"] == {"generation": 2}

    run(ask)
    assert "the gateway's metrics cannot be shown" in caplog.text


def test_pages_end_with_the_console() -> None:
    async def ask(live: FakeLive, feed: Feed) -> None:
        with feed.page() as page:
            await Reader(page).until("state")
            await feed.close()
            async with asyncio.timeout(WAIT_LIMIT_S):
                while await page.next() is not None:
                    pass
        with feed.page() as late:
            assert await late.next() is None

    run(ask)
