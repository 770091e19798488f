import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from jigsaw_triton.evaluation.rehearsal import clients
from jigsaw_triton.evaluation.rehearsal.clients import Load, due_times, send
from jigsaw_triton.evaluation.rehearsal.outcomes import Outcome, Outcomes

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """Answers like a gateway, as the request says."""
    match request:
        case b"refuse":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "task detect: overloaded")
        case b"fail":
            await context.abort(grpc.StatusCode.INTERNAL, "the model failed")
        case b"slow":
            await asyncio.sleep(0.3)
        case b"never":
            await asyncio.sleep(60)
    return b"answer"


@asynccontextmanager
async def gateway(handle: Answer = answer) -> AsyncIterator[str]:
    method = grpc.unary_unary_rpc_method_handler(handle)
    server = grpc.aio.server()
    handlers = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def load(*requests: bytes, due_s: float = 0.0, slo_ms: float = 100.0) -> Load:
    return Load(np.full(len(requests), due_s), requests, slo_ms)


def sent(*requests: bytes, due_s: float = 0.0) -> Outcomes:
    async def run() -> Outcomes:
        async with gateway() as address:
            return (await send(address, {"g": load(*requests, due_s=due_s)}, begin_s=time.monotonic()))["g"]

    return asyncio.run(run())


def test_requests_are_answered_refused_or_failed() -> None:
    found = sent(b"", b"refuse", b"fail", b"slow")
    assert found.outcome.tolist() == [Outcome.ANSWERED, Outcome.REFUSED, Outcome.FAILED, Outcome.ANSWERED]
    assert found.latency_ms[3] >= 300 > found.latency_ms[0]


def test_a_slow_answer_does_not_delay_the_next_request() -> None:
    found = sent(b"slow", b"", b"")
    assert (found.latency_ms[1:] < 300).all()


@pytest.mark.slow
def test_a_request_is_sent_when_it_is_due() -> None:
    began = time.monotonic()
    found = sent(b"", due_s=0.5)
    assert time.monotonic() - began >= 0.5
    assert 0 <= found.lag_ms[0] < 500


def test_a_request_without_an_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "WAIT_LIMIT_S", 0.2)
    found = sent(b"never", b"")
    assert found.outcome.tolist() == [Outcome.FAILED, Outcome.ANSWERED]


def test_requests_to_a_dead_gateway_fail_and_are_not_refused() -> None:
    async def run() -> Outcomes:
        async with gateway() as address:
            pass
        return (await send(address, {"g": load(b"")}, begin_s=time.monotonic()))["g"]

    assert asyncio.run(run()).outcome.tolist() == [Outcome.FAILED]


def test_each_graph_has_its_own_outcomes() -> None:
    async def run() -> dict[str, Outcomes]:
        async with gateway() as address:
            return await send(address, {"a": load(b""), "b": load(b"fail", b"")}, begin_s=time.monotonic())

    found = asyncio.run(run())
    assert found["a"].outcome.tolist() == [Outcome.ANSWERED]
    assert found["b"].outcome.tolist() == [Outcome.FAILED, Outcome.ANSWERED]


def test_due_times_lie_in_their_seconds() -> None:
    counts = np.array([3.0, 0.0, 500.0])
    times = due_times(counts, np.random.default_rng(1))
    assert np.bincount(times.astype(int), minlength=3).tolist() == [3, 0, 500]
    assert (np.diff(times) >= 0).all()
    assert np.mean(times[3:]) == pytest.approx(2.5, abs=0.05)
