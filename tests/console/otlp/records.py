"""Records of sampled requests, as servers write them."""

from typing import Any

from jigsaw_triton.runtime.trace import Call, Hop, Response, Run, TraceContext

BEGAN_S = 1_700_000_000.0
CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", "b7ad6b7169203331", "a=1")


def call(number: int = 7, **more: Any) -> Call:
    fields: dict[str, Any] = {
        "worker": "w",
        "model": "m",
        "variant": "v",
        "items": 1,
        "batch": 4,
        "sent_ms": 0.0,
        "ended_ms": 10.0,
        "outcome": "answered",
        "number": number,
        "span": f"{number:016x}",
    }
    return Call(**{**fields, **more})


def hop(*calls: Call, task: str = "detect", **more: Any) -> Hop:
    """A task that begins 2 ms after the request, waits 3 ms and takes 12 ms."""
    fields: dict[str, Any] = {
        "request": "7",
        "graph": "g",
        "route": f"g.{task}.g1",
        "taken_s": BEGAN_S + 0.005,
        "waited_ms": 3.0,
        "returned_ms": 12.0,
        "outcome": "answered",
        "message": "",
        "trace": CONTEXT,
    }
    return Hop(task=task, calls=calls, **{**fields, **more})


def response(**more: Any) -> Response:
    fields: dict[str, Any] = {
        "request": "7",
        "graph": "g",
        "model": "g",
        "arrived_s": BEGAN_S,
        "took_ms": 20.0,
        "items": 1,
        "outcome": "answered",
        "message": "",
        "trace": CONTEXT,
    }
    return Response(**{**fields, **more})


def run(*tokens: int, began_ms: float = 6.0, took_ms: float = 8.0, worker: str = "w", model: str = "m") -> Run:
    return Run(("7",), tokens, worker, model, BEGAN_S + began_ms / 1000, took_ms, 4)
