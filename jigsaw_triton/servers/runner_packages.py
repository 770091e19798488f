"""Python packages with the libraries that run models, and checks that they are installed.

Workers use the packages of this interpreter: in Triton's python stubs, or, for ONNX Runtime, in the compiled backend. A
package that is missing here is therefore missing in every worker.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from jigsaw_triton.compiler.templates import Template, template
from jigsaw_triton.compiler.worker_config import PYTHON, base_config
from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.runtime.spec import COMPILED_BACKEND
from jigsaw_triton.servers.interpreter import package_folders

RUNNER_PACKAGES = ("onnxruntime", "torch", "transformers")
"""Packages that a template needs. Each has the name of its template, of its module and of its extra."""


def install_command(package: str) -> str:
    """Returns the command that installs a package of RUNNER_PACKAGES."""
    return f"pip install 'jigsaw-triton[{package}]'"


def described(package: str) -> str:
    """Returns a package of RUNNER_PACKAGES with the version that is needed, for a message."""
    return "onnxruntime 1.20 or later" if package == "onnxruntime" else package


def installed_version(package: str) -> str | None:
    """Returns the version of a package, or None if workers cannot use the package."""
    if not (_has_library() if package == "onnxruntime" else find_spec(package) is not None):
        return None
    try:
        return version(package)
    except PackageNotFoundError:  # It is installed under another name, such as onnxruntime-gpu.
        return "unknown version"


def _has_library() -> bool:
    """Returns True if ONNX Runtime's shared library is where workers look for it; old releases do not contain it."""
    folders = (Path(folder, "onnxruntime", "capi") for folder in package_folders())
    return any(path for folder in folders for path in folder.glob("libonnxruntime.so*"))


def missing_packages(graph: TaskGraph, templates: Mapping[str, Template], backends: frozenset[str]) -> dict[str, str]:
    """Finds packages that the variants of a graph need and that are not installed.

    Args:
        graph: Graph to look at. All of its variants count, because a later plan may choose any of them.
        templates: Templates by name.
        backends: Backends of the workers' tritonserver. A variant that one of them serves natively needs no package.

    Returns:
        The first variant that needs it (`TASK.VARIANT`), by package.

    Raises:
        InputError: There is no template of a variant's name.
    """
    missing: dict[str, str] = {}
    for task in graph.tasks.values():
        for variant in task.variants:
            name, place = variant.template, f"{task.name}.{variant.name}"
            if name not in RUNNER_PACKAGES or name in missing or installed_version(name) is not None:
                continue
            where = f"{graph.name}.{place}"
            base = base_config(template(templates, name, where=where), task, backends | {PYTHON}, where)
            if base.backend in (PYTHON, COMPILED_BACKEND):
                missing[name] = place
    return missing


def require_packages(graphs: Iterable[TaskGraph], templates: Mapping[str, Template], backends: frozenset[str]) -> None:
    """Checks that the packages of all variants are installed. See `missing_packages` for the arguments.

    Raises:
        MissingDependencyError: A package is not installed.
        InputError: See `missing_packages`.
    """
    for graph in graphs:
        for package, place in missing_packages(graph, templates, backends).items():
            raise MissingDependencyError(
                f"the template {package!r} needs the Python package {described(package)}, which is not installed",
                where=f"{graph.name}.{place}",
                hint=install_command(package),
            )
