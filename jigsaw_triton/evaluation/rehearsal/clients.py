"""Clients that send requests at given times over gRPC, whether or not earlier ones were answered, without retries.

The requests are encoded beforehand and the answers are not decoded, because the clients share the machine's processors
with the servers.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.evaluation.rehearsal.outcomes import Outcome, Outcomes

Array = NDArray[np.float64]

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
WAIT_LIMIT_S = 10.0
"""Seconds beyond the SLO after which a request without an answer has failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one graph.

    Attributes:
        due_s: Time of each request, in seconds from the start of the load, ascending.
        requests: Encoded requests.
        slo_ms: Latency SLO of the graph.
    """

    due_s: Array
    requests: Sequence[bytes]
    slo_ms: float


def due_times(counts: Array, rng: np.random.Generator) -> Array:
    """Returns the times of requests, evenly distributed within each second.

    With counts drawn from a Poisson distribution, the requests are a Poisson process.

    Args:
        counts: Number of requests in each second.
        rng: Source of randomness.
    """
    seconds = np.repeat(np.arange(len(counts)), counts.astype(np.int64))
    due_s: Array = np.sort(seconds + rng.random(len(seconds)))
    return due_s


async def send(address: str, loads: Mapping[str, Load], *, begin_s: float) -> dict[str, Outcomes]:
    """Sends requests and waits for their answers.

    Args:
        address: gRPC address of the gateway.
        loads: Requests, by graph.
        begin_s: Start of the load, by the monotonic clock.

    Returns:
        Outcomes, by graph.
    """
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = channel.unary_unary(_INFER)
        clients = {name: _Client(load, call, begin_s) for name, load in loads.items()}
        await asyncio.gather(*(client.run() for client in clients.values()))
    return {name: client.outcomes for name, client in clients.items()}


class _Client:
    """Sends the requests of one load."""

    def __init__(self, load: Load, call: Callable[..., grpc.aio.UnaryUnaryCall], begin_s: float) -> None:
        self._load, self._call, self._begin_s = load, call, begin_s
        count = len(load.due_s)
        self._timeout_s = load.slo_ms / 1000 + WAIT_LIMIT_S
        self.outcomes = Outcomes(load.due_s, np.zeros(count), np.zeros(count), np.zeros(count, np.int8))

    async def run(self) -> None:
        """Sends all requests and waits for their answers."""
        async with asyncio.TaskGroup() as group:
            for index, due_s in enumerate(self._load.due_s.tolist()):
                if (wait_s := self._begin_s + due_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._one(index, self._begin_s + due_s))

    async def _one(self, index: int, due_at: float) -> None:
        sent_at = time.monotonic()
        try:
            await self._call(self._load.requests[index], timeout=self._timeout_s)
            outcome = Outcome.ANSWERED
        except grpc.aio.AioRpcError as error:
            outcome = outcome_of(error.code(), error.details() or "")
        self.outcomes.lag_ms[index] = 1000 * (sent_at - due_at)
        self.outcomes.latency_ms[index] = 1000 * (time.monotonic() - sent_at)
        self.outcomes.outcome[index] = outcome


def outcome_of(code: grpc.StatusCode, details: str) -> Outcome:
    """Returns the outcome of a call that ended with an error.

    A broken connection has the code of a refusal, but a message of gRPC's own. The gateway's refusals name a
    task or the graph.

    Args:
        code: Status code.
        details: Error message.
    """
    refused = code is grpc.StatusCode.UNAVAILABLE and ("task " in details or "graph " in details)
    return Outcome.REFUSED if refused else Outcome.FAILED
