"""Compiling plans to model repositories."""

from collections.abc import Callable, Collection
from pathlib import Path

from jigsaw_triton.api.files import Mistakes, PathLike, load_plan, planned_cluster, read_cluster, read_graphs
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import Graphs, Profiles, as_profiles, as_sources
from jigsaw_triton.api.profile_files import check_processes, read_profiles_and_lines
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.store import Identities, write_bundle
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import find_installation


def compile(
    graphs: Graphs,
    plan: Plan | PathLike,
    folder: PathLike,
    *,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    backends: Collection[str] | Callable[[], Collection[str]] = (),
    generation: int = 1,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Bundle:
    """Writes the model repositories of a plan.

    The folder gets a folder for each worker, a folder for the gateway, and the routes of each task. The same input
    gives the same bytes.

    Args:
        graphs: Graphs of the plan, or paths of graph.yaml files or their folders.
        plan: Plan, or the path of a plan.json.
        folder: Folder for the repositories: new, empty, or of an earlier call.
        gpus: GPUs of one machine, such as `4xA100-80GB`; by default the GPUs that the plan uses.
        cluster: A cluster, or the path of a cluster.yaml or its folder, instead of `gpus`.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        backends: Names of the backends of the tritonservers that will load the models, or a function that returns them;
            by default those of the local tritonserver, which is downloaded if it is missing.
        generation: Number in the models' names. A plan that is loaded beside an older one needs a greater number.
        reporter: Recipient of notes and warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        InputError: The plan does not fit the graphs, or the folder has other files in it or cannot be written.

    Examples:
        >>> import tempfile
        >>> import jigsaw_triton as jt
        >>> plan = jt.plan("app", demand=20, gpus="2xcpu")
        >>> folder = tempfile.mkdtemp()
        >>> bundle = jt.compile("app", plan, folder, backends=["python"])
        >>> list(bundle.graphs)
        ['hello']
    """
    sources, mistakes = as_sources(graphs), Mistakes()
    found = read_graphs(sources, mistakes, require_files=True)
    tables = read_profiles_and_lines(found, mistakes, given=as_profiles(profiles), sources=sources)
    built: Cluster | None = None
    with mistakes:
        if not isinstance(plan, Plan):
            plan = load_plan(plan)
        built = (
            planned_cluster(plan, driver)
            if gpus is None and cluster is None
            else read_cluster(mistakes, gpus=gpus, cluster=cluster, driver=driver, reporter=reporter, wording=wording)
        )
    if built is not None:
        check_processes(found, tables, built, mistakes)
    mistakes.raise_if_any()
    assert isinstance(plan, Plan) and built is not None
    names = backends() if callable(backends) else backends
    bundle = compile_plan(
        plan,
        found,
        built,
        {name: one.table for name, one in tables.items()},
        generation=generation,
        templates=load_templates(templates_dir()),
        backends=frozenset(names or find_installation().backends),
        identity=Identities(),
    )
    write_bundle(bundle, Path(folder))
    return bundle
