import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from jigsaw_triton.console.web.access import Access
from jigsaw_triton.console.web.assets import load_assets
from jigsaw_triton.console.web.records import Records
from jigsaw_triton.console.web.server import ConsoleServer
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from tests.controller.worlds import bundle, profiled, worker
from tests.fakes.live import FakeLive


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Provides a folder with pages in place of the built ones."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>console</title>" + 100 * "<p>hello</p>")
    (folder / "app.js").write_text("// script")
    return folder


@pytest.fixture
def paths(run_dir: Path) -> Paths:
    """Provides the paths of a deployment whose folders exist."""
    made = Paths(state=run_dir / "state", run=run_dir / "run")
    made.create()
    return made


@pytest.fixture
def journal(paths: Paths) -> Iterator[Journal]:
    """Provides the journal of the deployment."""
    made = Journal(paths.journal)
    yield made
    made.close()


def kept(journal: Journal, number: int = 1) -> Generation:
    """Records a generation that serves, and returns it."""
    made = profiled(bundle(number, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))]))
    keep(journal, made, "requested by the user", by_load=False)
    journal.conclude(number, "serves")
    return made


@dataclass(frozen=True, slots=True)
class Visit:
    """A browser at the console.

    Attributes:
        http: Client of the console's server.
        live: Stand-in for the controller.
        access: Tokens and sessions.
    """

    http: TestClient[Any, Any]
    live: FakeLive
    access: Access

    async def log_in(self) -> None:
        """Opens the console."""
        response = await self.http.get(f"/login?token={self.access.new_token()}")
        assert response.status == 200

    async def json(self, path: str) -> Any:
        """Returns what a path of the API answers."""
        response = await self.http.get(path)
        assert response.status == 200, await response.text()
        return await response.json()


Ask = Callable[[Visit], Awaitable[None]]
Visiting = Callable[..., None]


@pytest.fixture
def visiting(paths: Paths, pages: Path) -> Visiting:
    """Provides a function that runs a test with a browser at a console."""

    @asynccontextmanager
    async def opened(settings: ConsoleSettings) -> AsyncIterator[Visit]:
        live, access = FakeLive(), Access(settings.password)
        served = ConsoleServer(settings, access, load_assets(pages), live.as_running(), Records(paths), "demo")
        async with TestClient(TestServer(served.app)) as client:
            yield Visit(client, live, access)

    def run(ask: Ask, *, log_in: bool = True, **settings: Any) -> None:
        async def visit() -> None:
            async with opened(replace(ConsoleSettings(), **settings)) as made:
                if log_in:
                    await made.log_in()
                await ask(made)

        asyncio.run(visit())

    return run
