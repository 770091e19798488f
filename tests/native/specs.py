"""Builders of front specifications and route files for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Type = tuple[str, Sequence[int]]
"""Data type and shape without a batch dimension."""

ONE: Type = ("INT64", (1,))
PAIR: Type = ("INT64", (2,))
PAIRS: Type = ("INT64", (-1, 2))
LIST: Type = ("INT64", (-1,))
TEXT: Type = ("BYTES", (1,))


def task(
    name: str = "t",
    inputs: Mapping[str, tuple[str, Type]] | None = None,
    outputs: Mapping[str, Type] | None = None,
    *,
    mode: str = "stack",
    iterated: Sequence[str] = (),
    yields: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Specification of a task.

    Args:
        name: Name of the task and of its route.
        inputs: (tensor of the graph, type) of each input; None for X from `inputs.X`.
        outputs: Type of each output; None for Y.
        mode: `stack`, `rows` or `items`.
        iterated: Inputs that give one row to each call.
        yields: Outputs over whose rows another task iterates.
        more: Further members of the specification.
    """
    inputs = {"X": ("inputs.X", ONE)} if inputs is None else inputs
    outputs = {"Y": ONE} if outputs is None else outputs
    return {
        "name": name,
        "route": name,
        "mode": mode,
        "inputs": [
            {"name": key, "tensor": tensor, "dtype": dtype, "shape": list(shape), "iterated": key in iterated}
            for key, (tensor, (dtype, shape)) in inputs.items()
        ],
        "outputs": [
            {"name": key, "dtype": dtype, "shape": list(shape), "yields": key in yields}
            for key, (dtype, shape) in outputs.items()
        ],
        "deadline_ms": 120_000,
        **more,
    }


def spec(
    tasks: Sequence[Mapping[str, Any]] | None = None,
    inputs: Mapping[str, Type] | None = None,
    outputs: Mapping[str, tuple[str, Type]] | None = None,
    *,
    slo_ms: float = 60_000.0,
    **more: Any,
) -> dict[str, Any]:
    """Specification of a front.

    Args:
        tasks: Tasks in topological order; None for one `task()`.
        inputs: Type of each input; None for X.
        outputs: (tensor of the graph, type) of each output; None for Y from `t.Y`.
        slo_ms: Latency SLO in milliseconds.
        more: Further members of the specification.
    """
    inputs = {"X": ONE} if inputs is None else inputs
    outputs = {"Y": ("t.Y", ONE)} if outputs is None else outputs
    return {
        "version": 2,
        "graph": "g",
        "slo_ms": slo_ms,
        "inputs": [{"name": key, "dtype": dtype, "shape": list(shape)} for key, (dtype, shape) in inputs.items()],
        "outputs": [
            {"name": key, "tensor": tensor, "dtype": dtype, "shape": list(shape)}
            for key, (tensor, (dtype, shape)) in outputs.items()
        ],
        "tasks": list([task()] if tasks is None else tasks),
        **more,
    }


def rows_spec(**more: Any) -> dict[str, Any]:
    """Front of a task that is called for each row of ROWS, each time with all of K."""
    inputs = {"X": ("inputs.ROWS", PAIR), "K": ("inputs.K", ONE)}
    made = task(inputs=inputs, outputs={"Y": ONE}, mode="rows", iterated=["X"], **more)
    return spec([made], {"ROWS": PAIRS, "K": ONE}, {"Y": ("t.Y", ("INT64", (-1, 1)))})


def entry(worker: str, *, batch: int = 4, slots: int = 1, **more: Any) -> dict[str, Any]:
    """Entry of a route."""
    return {"worker": worker, "model": "m", "batch": batch, "slots": slots, **more}


def write_route(run_dir: Path, *entries: Mapping[str, Any], name: str = "t", epoch: int | None = None) -> Path:
    """Writes a route as the controller does: a new file replaces the old one."""
    route = {"version": 3, "workers": list(entries), **({} if epoch is None else {"epoch": epoch})}
    return write_text(run_dir, json.dumps(route), name)


def write_text(run_dir: Path, text: str, name: str = "t") -> Path:
    """Writes any text as a route file."""
    path = run_dir / "routes" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    return fresh.replace(path)
