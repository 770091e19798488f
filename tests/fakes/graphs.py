"""Small task graphs for tests: `chain`, `fan_out`, `diamond`, `conditional`, `nested`, `cropping`, and their parts.

The functions do not check the graphs, which are valid by construction; `build_graph` checks graphs from files.
"""

from collections.abc import Mapping, Sequence

from jigsaw_triton.graph.model import GraphInput, PythonStep, Slo, Target, Task, TaskGraph, Variant, When
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType

VECTOR = TensorType("FP32", (16,))
VECTORS = VECTOR.rows()
SCALAR = TensorType("FP32", (1,))
LOOSE = Slo(latency_ms=1000.0, percentile=99.0, accuracy=0.5)


def ref(text: str) -> TensorRef:
    """Parses a tensor reference such as `task.OUTPUT` or `inputs.NAME`."""
    task, name = text.split(".")
    return TensorRef(task, name)


def variants(count: int = 1, *, yields: Mapping[str, float] | None = None) -> tuple[Variant, ...]:
    """Returns `emulated` variants `v0`, `v1`, ... with accuracies 1.0, 0.9, ... and equal yields."""
    return tuple(
        Variant(f"v{i}", accuracy=round(1.0 - 0.1 * i, 6), template="emulated", yields=dict(yields or {}))
        for i in range(count)
    )


def task(
    name: str,
    inputs: Mapping[str, str],
    *,
    outputs: Mapping[str, TensorType] | None = None,
    of: Sequence[Variant] | None = None,
    for_each: str | None = None,
    when: When | None = None,
    counts: Mapping[str, str] | None = None,
) -> Task:
    """Returns a task with the variants `of`; by default one variant `v0` and one output `Y` of 16 floats."""
    return Task(
        name=name,
        inputs={key: ref(value) for key, value in inputs.items()},
        outputs=dict(outputs or {"Y": VECTOR}),
        variants=tuple(of or variants()),
        for_each=None if for_each is None else ref(for_each),
        when=when,
        counts=dict(counts or {}),
    )


def step(
    name: str,
    inputs: Mapping[str, str],
    source: str,
    *,
    outputs: Mapping[str, TensorType] | None = None,
    latency_ms: float = 1.0,
    yields: Mapping[str, float] | None = None,
) -> PythonStep:
    """Returns a Python step in the file `steps/<name>.py`; by default with one output `Y` of 16 floats."""
    return PythonStep(
        name=name,
        inputs={key: ref(value) for key, value in inputs.items()},
        outputs=dict(outputs or {"Y": VECTOR}),
        file=f"steps/{name}.py",
        source=source,
        latency_ms=latency_ms,
        yields=dict(yields or {}),
    )


def graph(
    tasks: Sequence[Task],
    outputs: Mapping[str, str],
    *,
    name: str = "app",
    slo: Slo = LOOSE,
    inputs: Mapping[str, TensorType | GraphInput] | None = None,
    target: Target = "auto",
    steps: Sequence[PythonStep] = (),
) -> TaskGraph:
    """Returns a graph of tasks and steps in topological order; by default with one input `X` of 16 floats."""
    return TaskGraph(
        name=name,
        slo=slo,
        inputs={
            key: value if isinstance(value, GraphInput) else GraphInput(value)
            for key, value in (inputs or {"X": VECTOR}).items()
        },
        outputs={key: ref(value) for key, value in outputs.items()},
        tasks={item.name: item for item in tasks},
        target=target,
        steps={item.name: item for item in steps},
    )


def chain(length: int = 2, *, variant_count: int = 1, name: str = "chain", slo: Slo = LOOSE) -> TaskGraph:
    """Returns the graph X -> t0 -> t1 -> ... -> Y, in which all tensors have 16 floats."""
    tasks = [
        task(f"t{i}", {"X": f"{GRAPH_INPUTS}.X" if i == 0 else f"t{i - 1}.Y"}, of=variants(variant_count))
        for i in range(length)
    ]
    return graph(tasks, {"Y": f"t{length - 1}.Y"}, name=name, slo=slo)


def fan_out(*, rows: float = 3.0, variant_count: int = 1, name: str = "fan_out", slo: Slo = LOOSE) -> TaskGraph:
    """Returns the graph X -> detect -> classify (for each of CROPS) -> LABEL.

    `detect` also makes BOX, one vector per request.
    """
    detect = task(
        "detect",
        {"X": "inputs.X"},
        outputs={"BOX": VECTOR, "CROPS": VECTORS},
        of=variants(variant_count, yields={"CROPS": rows}),
    )
    classify = task(
        "classify",
        {"CROP": "detect.CROPS"},
        outputs={"LABEL": TensorType("INT64", (1,))},
        of=variants(variant_count),
        for_each="detect.CROPS",
    )
    return graph([detect, classify], {"BOX": "detect.BOX", "LABEL": "classify.LABEL"}, name=name, slo=slo)


def diamond(*, variant_count: int = 1, name: str = "diamond", slo: Slo = LOOSE) -> TaskGraph:
    """Returns the graph X -> a -> (b, c) -> d -> Y, in which all tensors have 16 floats."""
    each = variants(variant_count)
    return graph(
        [
            task("a", {"X": "inputs.X"}, of=each),
            task("b", {"X": "a.Y"}, of=each),
            task("c", {"X": "a.Y"}, of=each),
            task("d", {"LEFT": "b.Y", "RIGHT": "c.Y"}, of=each),
        ],
        {"Y": "d.Y"},
        name=name,
        slo=slo,
    )


def conditional(
    *, probability: float = 0.5, variant_count: int = 1, name: str = "conditional", slo: Slo = LOOSE
) -> TaskGraph:
    """Returns the graph X -> screen -> inspect (if SCORE is above 0.5) -> REPORT, which has 0 or 1 rows.

    SCORE is an output of the graph, too.
    """
    each = variants(variant_count)
    screen = task("screen", {"X": "inputs.X"}, outputs={"SCORE": SCALAR, "Y": VECTOR}, of=each)
    inspect = task(
        "inspect",
        {"X": "screen.Y"},
        of=each,
        when=When(ref("screen.SCORE"), above=0.5, below=None, probability=probability),
    )
    return graph([screen, inspect], {"SCORE": "screen.SCORE", "REPORT": "inspect.Y"}, name=name, slo=slo)


def nested(
    *, lines: float = 3.0, words: float = 4.0, variant_count: int = 1, name: str = "nested", slo: Slo = LOOSE
) -> TaskGraph:
    """Returns the graph X -> detect -> split (for each of LINES) -> read (for each of WORDS) -> TEXT.

    `split` also makes KIND and PER_LINE, the number of words per line.
    """
    each = variants(variant_count)
    detect = task(
        "detect", {"X": "inputs.X"}, outputs={"LINES": VECTORS}, of=variants(variant_count, yields={"LINES": lines})
    )
    split = task(
        "split",
        {"LINE": "detect.LINES"},
        outputs={"WORDS": VECTORS, "KIND": TensorType("INT64", (1,))},
        of=variants(variant_count, yields={"WORDS": words}),
        for_each="detect.LINES",
        counts={"PER_LINE": "WORDS"},
    )
    read = task(
        "read", {"WORD": "split.WORDS"}, outputs={"TEXT": TensorType("INT64", (1,))}, of=each, for_each="split.WORDS"
    )
    outputs = {"KIND": "split.KIND", "PER_LINE": "split.PER_LINE", "TEXT": "read.TEXT"}
    return graph([detect, split, read], outputs, name=name, slo=slo)


CROP = """\
def step(X, BOXES):
    return {"CROPS": X[None] + BOXES}
"""


def cropping(
    *, rows: float = 3.0, latency_ms: float = 5.0, variant_count: int = 1, name: str = "cropping", slo: Slo = LOOSE
) -> TaskGraph:
    """Returns the graph X -> detect -> crop (a Python step on X and BOXES) -> classify (for each of CROPS) -> LABEL."""
    each = variants(variant_count)
    detect = task("detect", {"X": "inputs.X"}, outputs={"BOXES": VECTORS}, of=each)
    crop = step(
        "crop",
        {"X": "inputs.X", "BOXES": "detect.BOXES"},
        CROP,
        outputs={"CROPS": VECTORS},
        latency_ms=latency_ms,
        yields={"CROPS": rows},
    )
    classify = task(
        "classify", {"CROP": "crop.CROPS"}, outputs={"LABEL": TensorType("INT64", (1,))}, of=each, for_each="crop.CROPS"
    )
    return graph([detect, classify], {"LABEL": "classify.LABEL"}, name=name, slo=slo, steps=[crop])
