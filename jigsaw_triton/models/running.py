"""Runs the models of a graph on samples, each as a worker's runner would, in a process that it may crash or hang."""

import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path as FilePath

import numpy as np

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.compiler.worker_config import runner_spec, stored_name
from jigsaw_triton.evaluation.profiling.tensors import made_up, sample_inputs
from jigsaw_triton.graph.model import Task, TaskGraph, Variant
from jigsaw_triton.graph.reference import TASKS
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.models.comparison import output_mismatches
from jigsaw_triton.models.interface import Interface
from jigsaw_triton.models.kinds import kind_of
from jigsaw_triton.models.trial import Outcome, Trial
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.spec.source import Path, Report

TIMEOUT_S = 120.0
"""Seconds that a model may take to load and to run three items; large models take half a minute to load."""

WORKER_MODULE = "jigsaw_triton.models.worker"
"""Module of the process that runs and converts models, such as a `Trial`."""

_SEED = 1


def run_models(
    graph: TaskGraph, report: Report, *, without: Collection[tuple[str, str]] = (), timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Runs each model of the graph whose files exist, and reports those that fail or return other types than declared.

    A task whose inputs all come from the graph's samples gets them; any other gets random data of its types. A model
    that refuses random data is not a mistake.

    Args:
        graph: Graph with the models.
        report: Report to which mistakes are added.
        without: (task, variant) pairs of models that are not run.
        timeout_s: Seconds that each model may take.

    Returns:
        Notes about models that could not be checked, or not completely.

    Raises:
        InputError: A sample cannot be read or has the wrong type.
    """
    samples = sample_inputs(graph) if all(path.is_file() for path in graph.samples.values()) else {}
    notes: list[str] = []
    with _Children(timeout_s) as children:
        for task in graph.tasks.values():
            inputs, real = _inputs(graph, task, samples)
            for index, variant in enumerate(task.variants):
                complete = all(path.is_file() for path in variant.artifacts.values())
                if kind_of(variant.template).runs and complete and (task.name, variant.name) not in without:
                    place: Path = (*TASKS, task.name, "variants", index)
                    model = f"{task.name}.{variant.name}"
                    try:
                        outcome = children.run(graph, task, variant, inputs)
                    except ChildHungError:
                        report.add(place, f"{model} has not answered after {timeout_s:g} s", _LEAVE_OUT)
                        continue
                    except ChildEndedError as error:
                        report.add(place, f"{model} ends its process{cause(error.status)}", _LEAVE_OUT)
                        continue
                    notes += _judge(task, model, place, outcome, report, real=real)
    return notes


_LEAVE_OUT = "correct the model; validate --no-models runs none"


def _judge(task: Task, model: str, place: Path, outcome: Outcome, report: Report, *, real: bool) -> Iterator[str]:
    """Reports the mistakes of a model that has run, and yields notes."""
    match outcome.phase:
        case "packages":
            yield f"{model} was not run, because the Python package {outcome.error} is not installed"
        case "load":
            report.add(place, f"{model} cannot be loaded: {outcome.error}", "correct the model or its parameters")
        case "types":
            yield f"{model} was loaded but not run, because onnxruntime can pass BF16 in workers only"
        case "run" if real:
            report.add(place, f"{model} fails on the sample: {outcome.error}", "correct the model or the sample")
        case "run":
            yield f"{model} fails on random data, which may not suit it: {outcome.error}"
        case "done":
            interface = Interface({}, outcome.outputs)
            for mismatch in output_mismatches(task, model, interface, exact=True):
                report.add(*mismatch)
            if outcome.batch_error:
                yield f"{model} fails on a batch of 2, so only a batch size of 1 can be used: {outcome.batch_error}"


def _inputs(graph: TaskGraph, task: Task, samples: Mapping[TensorRef, Array]) -> tuple[Arrays, bool]:
    """Returns inputs of one call, and True if all of them are samples."""
    rng = np.random.default_rng(_SEED)
    inputs: dict[str, Array] = {}
    for name, ref in task.inputs.items():
        usable = ref in samples and not (graph.iterated(task, ref) and not len(samples[ref]))
        if usable:
            array = samples[ref][0] if graph.iterated(task, ref) else samples[ref]
        else:
            array = made_up(graph.input_type(task, name), rng)
        inputs[name] = array.reshape(1) if name in task.scalar_inputs else array[None]
    return inputs, all(ref in samples for ref in task.inputs.values())


def cause(status: int) -> str:
    """Returns how a process ended, for a message."""
    return f" (signal {signal.Signals(-status).name})" if status < 0 else f" with status {status}"


class _Children:
    """Runs trials in one process after another: in the same one until a model ends it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child: ChildProcess | None = None

    def __enter__(self) -> "_Children":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def run(self, graph: TaskGraph, task: Task, variant: Variant, inputs: Arrays) -> Outcome:
        """Runs a variant on one item.

        Raises:
            ChildHungError: The variant took too long.
            ChildEndedError: The variant ended the process.
        """
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._child.close()
            self._child = ChildProcess(WORKER_MODULE)
        with tempfile.TemporaryDirectory(prefix="jigsaw-model-") as folder:
            for name, path in variant.artifacts.items():
                (FilePath(folder) / stored_name(name, templated=True)).symlink_to(path)
            trial = Trial(FilePath(folder), runner_spec(graph, task, variant), inputs)
            outcome: Outcome = self._child.call(trial, self._timeout_s)
            return outcome
