"""Documents of the web console's API for a deployment that does not exist."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]
"""JSON object of the API."""

NOW = 1_790_000_000.0
"""Time of the documents, in Unix seconds."""

_TASKS = ("detect", "cars", "faces")
_VARIANTS = {"detect": "yolov5m", "cars": "efficientnet-b2", "faces": "vgg11"}
_MODEL = {"detect": (2, 4), "cars": (2, 8), "faces": (1, 8)}

Layout = Sequence[tuple[str, int, int, str]]
"""(Kind, start, memory slices, task) of each slice of a GPU."""

LAYOUTS: tuple[Layout, ...] = (
    (("3g", 0, 4, "detect"), ("2g", 4, 2, "cars"), ("1g", 6, 1, "faces")),
    (("4g", 0, 4, "detect"), ("3g", 4, 4, "cars")),
    (("2g", 0, 2, "detect"), ("2g", 2, 2, "detect"), ("1gx2", 4, 2, "cars"), ("1g", 6, 1, "faces")),
    tuple(("1g", start, 1, "faces" if start % 3 else "cars") for start in range(7)),
    (("7g", 0, 8, "detect"),),
    (("3g", 0, 4, "cars"),),
)


def worker(task: str, gpu: str, kind: str, start: int, *, state: str = "ready", variant: str = "") -> Document:
    """Returns a worker with one model."""
    instances, batch = _MODEL.get(task, (1, 1))
    size = int(kind[0])
    seed = random.Random(f"{gpu}/{start}")
    return {
        "state": state,
        "gpu": gpu,
        "slice": kind,
        "start": start,
        "pid": 4000 + seed.randrange(900),
        "restarts": 0,
        "use": {"memory_mib": 4200 * size, "memory_total_mib": 9728 * size, "busy": round(seed.uniform(0.3, 0.9), 2)},
        "models": [
            {
                "graph": "traffic",
                "task": task,
                "variant": variant or _VARIANTS.get(task, "v"),
                "instances": instances,
                "batch": batch,
                "standby": False,
                "planned": {"throughput_rps": 96.0 * size, "p50_ms": 18.4, "p99_ms": 31.2, "memory_mib": 5120 * size},
                "measured": measured(seed, instances),
            }
        ],
    }


def measured(seed: random.Random, instances: int = 1) -> Document:
    """Returns the measured figures of a model whose instances are mostly busy."""
    mean_ms = seed.uniform(14, 26)
    busy = seed.uniform(0.35, 0.92)
    return {"batches_rps": round(busy * instances * 1000 / mean_ms, 2), "mean_ms": round(mean_ms, 2), "slowdown": 1.04}


def boards(count: int, layouts: Sequence[Layout] = LAYOUTS) -> tuple[Document, Document]:
    """Returns the GPUs and the workers of a cluster, eight GPUs to a node."""
    gpus: Document = {}
    workers: Document = {}
    for number in range(count):
        node, index = f"node{number // 8:02}", number % 8
        key = f"{node}/{index}"
        slices = []
        for kind, start, size, task in layouts[number % len(layouts)]:
            name = f"{node}-{index}-{start}"
            slices.append({"slice": kind, "start": start, "size": size, "worker": name, "foreign": False})
            workers[name] = worker(task, key, kind, start)
        gpus[key] = {
            "node": node,
            "index": index,
            "model": "H100-80GB",
            "size": 7,
            "memory": 8,
            "lost": False,
            "slices": slices,
        }
    return gpus, workers


def graph() -> Document:
    """Returns a graph of three tasks with fan-out and a condition."""

    def task(budget_ms: float, rate_rps: float, p99_ms: float, variants: Document) -> Document:
        figures = {"rate_rps": rate_rps * 0.97, "p50_ms": p99_ms * 0.55, "p99_ms": p99_ms, "queue_ms": p99_ms * 0.2}
        return {"budget_ms": budget_ms, "rate_rps": rate_rps, "measured": figures, "variants": variants}

    def variant(accuracy: float, planned: float, measured_share: float) -> Document:
        figures = {"rate_rps": 410.0 * measured_share, "p50_ms": 17.5, "p99_ms": 33.8}
        return {"accuracy": accuracy, "share_planned": planned, "share_measured": measured_share, "measured": figures}

    def edge(start: str, end: str, tensors: list[str], rate_rps: float, **more: Any) -> Document:
        plain = {"for_each": False, "when": None, "fan_out_planned": None, "fan_out_measured": None}
        return {"from": start, "to": end, "tensors": tensors, "rate_rps": rate_rps} | plain | more

    return {
        "demand_rps": 420.0,
        "capacity_rps": 487.0,
        "arrivals_rps": 411.6,
        "slo_latency_ms": 350.0,
        "percentile": 99,
        "slo_accuracy": 0.9,
        "accuracy": 0.931,
        "latency_ms": 312.0,
        "target": "graph",
        "inputs": ["FRAME"],
        "outputs": ["MAKE", "PERSON"],
        "critical_path": ["detect", "cars"],
        "tasks": {
            "detect": task(
                140.0, 420.0, 96.0, {"yolov5m": variant(0.895, 0.8, 0.78), "yolov5s": variant(0.738, 0.2, 0.22)}
            ),
            "cars": task(172.0, 1130.0, 181.0, {"efficientnet-b2": variant(0.958, 1.0, 1.0)}),
            "faces": task(120.0, 391.0, 61.0, {"vgg11": variant(0.954, 1.0, 1.0)}),
        },
        "edges": [
            edge("inputs", "detect", ["FRAME"], 411.6),
            edge("detect", "cars", ["CARS"], 1097.0, for_each=True, fan_out_planned=2.79, fan_out_measured=2.67),
            edge(
                "detect",
                "faces",
                ["FACES"],
                372.0,
                for_each=True,
                when="SCORE above 0.5",
                fan_out_planned=0.93,
                fan_out_measured=0.9,
            ),
            edge("cars", "graph outputs", ["MAKE"], 1097.0),
            edge("faces", "graph outputs", ["PERSON"], 372.0),
        ],
    }


def state(gpus: int = 12) -> Document:
    """Returns the state of a deployment that serves one graph on this number of GPUs."""
    found, workers = boards(gpus)
    nodes = sorted({gpu["node"] for gpu in found.values()})
    return {
        "now": NOW,
        "deployment": {
            "state": "ready",
            "serving": True,
            "degraded": False,
            "reasons": [],
            "paused": False,
            "doing": "",
            "error": "",
            "generation": 7,
            "driver": "emulated",
            "emulated": ["MIG: instances exist only in a state file; the GPUs are not real"],
            "version": "0.1.0",
            "canary": None,
        },
        "gateway": {"state": "ready", "http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001", "restarts": 0},
        "standby_gateway": None,
        "edge": None,
        "nodes": {name: node(name, found, rack=f"r{number // 4}") for number, name in enumerate(nodes)},
        "graphs": {"traffic": graph()},
        "gpus": found,
        "workers": workers,
        "change": None,
    }


def node(name: str, gpus: Document, *, rack: str, state: str = "ready", cordoned: bool = False) -> Document:
    """Returns a node with the GPUs that belong to it."""
    own = [gpu for gpu in gpus.values() if gpu["node"] == name]
    return {
        "name": name,
        "state": state,
        "cordoned": cordoned,
        "agent": f"{name}:7070",
        "topology": {"rack": rack},
        "gpus": {"H100-80GB": len(own)},
        "lost": [],
        "workers": [piece["worker"] for gpu in own for piece in gpu["slices"]],
    }


def sample(t: float) -> Document:
    """Returns the figures of one second: a slow wave with a little noise."""
    noise = random.Random(round(t))
    arrivals = 400 + 45 * math.sin(t / 170) + 8 * noise.random()
    refused = 9.0 if noise.random() > 0.985 else 0.0
    figures = {
        "arrivals_rps": round(arrivals, 1),
        "served_rps": round(arrivals - refused, 1),
        "refused_rps": refused,
        "failed_rps": 0.0,
        "p50_ms": round(150 + 0.1 * (arrivals - 400) + 4 * noise.random(), 1),
        "p99_ms": round(280 + 0.6 * (arrivals - 400) + 16 * noise.random(), 1),
        "accuracy": round(0.931 + 0.004 * math.sin(t / 400), 4),
    }
    return {"t": t, "slices": 34, "graphs": {"traffic": figures}}


def history(now: float, seconds: int = 3600, step: int = 1) -> Document:
    """Returns the samples until `now`, and the plan changes among them."""
    samples = [sample(now - back) for back in range(seconds, 0, -step)]
    columns = {name: [s["graphs"]["traffic"][name] for s in samples] for name in samples[0]["graphs"]["traffic"]}
    return {
        "samples": {
            "t": [s["t"] for s in samples],
            "slices": [30 if s["t"] < now - 700 else 33 if s["t"] < now - 240 else 34 for s in samples],
            "graphs": {"traffic": columns},
        },
        "changes": [
            change(now - 2400, 5, "files changed", 41.0, 33, 30, ["variant yolov5l of detect is gone"]),
            change(now - 700, 6, "demand of traffic rose to 402/s", 18.4, 30, 33, ["+1 3g for cars on node00/5"]),
            change(now - 240, 7, "demand of traffic rose to 420/s", 9.1, 33, 34, ["+1 1g for faces on node01/2"]),
        ],
    }


def change(
    t: float, generation: int, why: str, seconds: float, before: int, after: int, summary: list[str]
) -> Document:
    """Returns a plan change of the past."""
    return {
        "t": t,
        "generation": generation,
        "from": generation - 1,
        "why": why,
        "seconds": seconds,
        "slices_before": before,
        "slices_after": after,
        "summary": summary,
    }


_EVENTS = (
    ("worker_started", "worker node00-0-0 is ready on slice 3g at 0 of node00/0"),
    ("change_started", "generation 7 replaces generation 6: demand of traffic rose to 420/s"),
    ("worker_died", "worker node00-1-4 ended with signal 9; it is started again"),
    ("worker_restarted", "worker node00-1-4 is ready again after 2.1 s"),
    ("change_done", "generation 7 serves; 34 slices on 12 GPUs"),
)


def event(number: int, kind: str, text: str, now: float = NOW) -> Document:
    """Returns an event of the controller."""
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return {"id": number, "at": at, "kind": kind, "text": text, "code": 0}


def events(count: int, now: float) -> list[Document]:
    """Returns events, the oldest first."""
    return [event(number + 1, *_EVENTS[number % len(_EVENTS)], now - 7.0 * (count - number)) for number in range(count)]


def traces(now: float) -> list[Document]:
    """Returns the heads of a few traced requests, the newest first."""
    return [
        {
            "id": f'["traffic","r-{number}"]',
            "request": f"r-{number}",
            "graph": "traffic",
            "t": now - 3 * number,
            "ms": 180.0 + 37 * (number % 5),
            "outcome": "answered",
        }
        for number in range(14)
    ]


def trace(identity: str) -> Document:
    """Returns one traced request."""

    def span(task: str, kind: str, start_ms: float, end_ms: float, items: int = 1, name: str = "") -> Document:
        place = {"worker": name or None, "variant": _VARIANTS[task] if name else None, "outcome": "answered"}
        return {"task": task, "items": items, "kind": kind, "start_ms": start_ms, "end_ms": end_ms} | place

    return {
        "id": identity,
        "graph": "traffic",
        "spans": [
            span("detect", "queue", 0.2, 22.0),
            span("detect", "gateway", 22.0, 84.4),
            span("detect", "call", 22.0, 84.0, 4, "node00-0-0"),
            span("detect", "model", 24.0, 82.0, 4, "node00-0-0"),
            span("cars", "queue", 84.5, 121.0, 3),
            span("cars", "gateway", 121.0, 180.0, 3),
            span("cars", "call", 121.0, 176.0, 8, "node00-0-4"),
            span("cars", "model", 122.5, 174.0, 8, "node00-0-4"),
            span("faces", "queue", 84.5, 92.0),
            span("faces", "gateway", 92.0, 139.4),
            span("faces", "call", 92.0, 139.0, 1, "node00-0-6"),
            span("faces", "model", 93.0, 137.0, 1, "node00-0-6"),
        ],
    }


def plan(found: Document) -> Document:
    """Returns the plan that a state runs."""
    graphs = {
        name: {
            "demand_rps": g["demand_rps"],
            "capacity_rps": g["capacity_rps"],
            "accuracy": g["accuracy"],
            "latency_ms": g["latency_ms"],
            "tasks": {
                task: {"budget_ms": t["budget_ms"], "rate_rps": t["rate_rps"], "segments": []}
                for task, t in g["tasks"].items()
            },
        }
        for name, g in found["graphs"].items()
    }
    gpus = [
        {
            "node": gpu["node"],
            "index": gpu["index"],
            "model": gpu["model"],
            "layout": [
                {
                    "slice": s["slice"],
                    "start": s["start"],
                    "models": [
                        {key: m[key] for key in ("graph", "task", "variant", "instances", "batch")}
                        for m in found["workers"][s["worker"]]["models"]
                    ],
                }
                for s in gpu["slices"]
                if s["worker"] is not None
            ],
        }
        for gpu in found["gpus"].values()
    ]
    slices = sum(int(s["slice"][0]) for gpu in gpus for s in gpu["layout"])
    solver = {"name": "highs", "status": "optimal", "seconds": 0.42, "gap": 0.0}
    return {
        "version": 1,
        "graphs": graphs,
        "gpus": gpus,
        "slices_used": slices,
        "slices_total": 7 * len(gpus),
        "gpus_used": len(gpus),
        "solver": solver,
    }


def explanation() -> Document:
    """Returns the explanation of a plan."""

    def requirement(name: str, value: float, cost: int, steps: Sequence[tuple[str, int]]) -> Document:
        effects = [{"change": c, "outcome": "plan", "slices": s, "gpus": 0} for c, s in steps]
        return {"name": name, "value": value, "binds": cost > 0, "steps": effects, "cost_slices": cost}

    def path(tasks: list[str], latency_ms: float) -> Document:
        rest = {"slo_ms": 350.0, "slack_ms": 350.0 - latency_ms, "accuracy": 0.931, "slo_accuracy": 0.9}
        return {"graph": "traffic", "tasks": tasks, "latency_ms": latency_ms} | rest

    def choice(task: str, what: str, chosen: str, instead: str, outcome: str, slices: int) -> Document:
        effect = {"outcome": outcome, "slices": slices, "gpus": 0}
        return {"graph": "traffic", "task": task, "what": what, "chosen": chosen, "instead": instead} | effect

    return {
        "binding": ["the latency of traffic (350 ms) on detect → cars", "the demand of traffic (420/s)"],
        "requirements": [
            requirement("latency of traffic", 350.0, 5, [("10% looser", -2), ("10% tighter", 4)]),
            requirement("accuracy of traffic", 0.9, 3, [("10% looser", -3), ("5% tighter", 6)]),
            requirement("demand of traffic", 420.0, 2, [("10% less", -2), ("10% more", 3)]),
            requirement("GPUs", 12, 0, [("one fewer", 0)]),
        ],
        "alternatives": [
            choice("detect", "variant", "yolov5m", "yolov5l on 4g", "plan", 4),
            choice("cars", "slice", "2g", "3g with 3 instances", "plan", 2),
            choice("faces", "variant", "vgg11", "", "none", 0),
        ],
        "paths": [path(["detect", "cars"], 312.0), path(["detect", "faces"], 260.0)],
    }
