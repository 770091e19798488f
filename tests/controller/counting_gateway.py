"""A gateway whose counter of arrivals has given values."""

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample


class CountingGateway:
    """A fleet with a gateway whose counter of arrivals has these values, one after the other; None is no answer."""

    def __init__(self, *counts: float | None) -> None:
        self._counts = list(counts)
        self.client = self

    def server(self, _: str) -> "CountingGateway":
        return self

    async def metrics(self, _prefixes: tuple[str, ...] = ()) -> list[Sample]:
        count = self._counts.pop(0)
        if count is None:
            raise ServerError("it does not answer")
        return [Sample("jigsaw_arrivals_total", {"graph": "app"}, count)]
