"""Serve compound AI systems on partitioned GPUs.

`jigsaw_triton.runtime` imports this module inside every tritonserver process, so it must not import anything itself.
The public names are imported on first use.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
"""True for type checkers only, as `typing.TYPE_CHECKING`, which is not imported here."""

if TYPE_CHECKING:
    from jigsaw_triton.api.accuracies import Accuracies as Accuracies
    from jigsaw_triton.api.accuracies import measure_accuracies as measure_accuracies
    from jigsaw_triton.api.adding import add_models as add_models
    from jigsaw_triton.api.asynchronous import AsyncDeployment as AsyncDeployment
    from jigsaw_triton.api.asynchronous import deploy_async as deploy_async
    from jigsaw_triton.api.cell_files import write_cells as write_cells
    from jigsaw_triton.api.cells import Cells as Cells
    from jigsaw_triton.api.checking import check_models as check_models
    from jigsaw_triton.api.compiling import compile as compile
    from jigsaw_triton.api.deploying import deploy as deploy
    from jigsaw_triton.api.deployment import Deployment as Deployment
    from jigsaw_triton.api.exporting import export_compose as export_compose
    from jigsaw_triton.api.exporting import export_envoy as export_envoy
    from jigsaw_triton.api.exporting import export_kubernetes as export_kubernetes
    from jigsaw_triton.api.exporting import export_systemd as export_systemd
    from jigsaw_triton.api.exporting import export_systemd_agent as export_systemd_agent
    from jigsaw_triton.api.exporting import export_systemd_front as export_systemd_front
    from jigsaw_triton.api.files import load_cluster as load_cluster
    from jigsaw_triton.api.files import load_graph as load_graph
    from jigsaw_triton.api.files import load_partition as load_partition
    from jigsaw_triton.api.files import load_plan as load_plan
    from jigsaw_triton.api.graph_builder import GraphBuilder as GraphBuilder
    from jigsaw_triton.api.planning import Capacity as Capacity
    from jigsaw_triton.api.planning import capacity as capacity
    from jigsaw_triton.api.planning import explain as explain
    from jigsaw_triton.api.planning import load_problem as load_problem
    from jigsaw_triton.api.planning import plan as plan
    from jigsaw_triton.api.planning import plan_cells as plan_cells
    from jigsaw_triton.api.profile_builder import ProfileBuilder as ProfileBuilder
    from jigsaw_triton.api.profile_files import load_profiles as load_profiles
    from jigsaw_triton.api.profiles import check_profiles as check_profiles
    from jigsaw_triton.api.profiles import fit_profiles as fit_profiles
    from jigsaw_triton.api.profiles import import_profiles as import_profiles
    from jigsaw_triton.api.profiles import report_profiles as report_profiles
    from jigsaw_triton.api.rehearsing import Rehearsed as Rehearsed
    from jigsaw_triton.api.rehearsing import rehearse as rehearse
    from jigsaw_triton.api.replaying import Replay as Replay
    from jigsaw_triton.api.replaying import SteadyTrials as SteadyTrials
    from jigsaw_triton.api.replaying import replay as replay
    from jigsaw_triton.api.replaying import steady_trials as steady_trials
    from jigsaw_triton.api.simulating import Simulated as Simulated
    from jigsaw_triton.api.simulating import simulate as simulate
    from jigsaw_triton.api.variants import make_variants as make_variants
    from jigsaw_triton.errors import ArtifactError as ArtifactError
    from jigsaw_triton.errors import Diagnostic as Diagnostic
    from jigsaw_triton.errors import GpuLostError as GpuLostError
    from jigsaw_triton.errors import InfeasibleError as InfeasibleError
    from jigsaw_triton.errors import InputError as InputError
    from jigsaw_triton.errors import InstanceInUseError as InstanceInUseError
    from jigsaw_triton.errors import InstanceNotFoundError as InstanceNotFoundError
    from jigsaw_triton.errors import JigsawError as JigsawError
    from jigsaw_triton.errors import MigError as MigError
    from jigsaw_triton.errors import MigTimeoutError as MigTimeoutError
    from jigsaw_triton.errors import MissingDependencyError as MissingDependencyError
    from jigsaw_triton.errors import OverloadedGatewayError as OverloadedGatewayError
    from jigsaw_triton.errors import OverloadedProcessorError as OverloadedProcessorError
    from jigsaw_triton.errors import PlacementError as PlacementError
    from jigsaw_triton.errors import RefusedError as RefusedError
    from jigsaw_triton.errors import ServerError as ServerError
    from jigsaw_triton.errors import SpecError as SpecError
    from jigsaw_triton.errors import StateError as StateError
    from jigsaw_triton.errors import UnplacedError as UnplacedError
    from jigsaw_triton.evaluation.replay import Contender as Contender
    from jigsaw_triton.gpus.model import Cluster as Cluster
    from jigsaw_triton.graph.model import TaskGraph as TaskGraph
    from jigsaw_triton.graph.tensors import TensorType as TensorType
    from jigsaw_triton.planner.cells.model import Partition as Partition
    from jigsaw_triton.planner.domain.plan import Plan as Plan
    from jigsaw_triton.planner.domain.problem import Options as Options
    from jigsaw_triton.planner.domain.problem import Problem as Problem
    from jigsaw_triton.planner.explain.explanation import Explanation as Explanation
    from jigsaw_triton.profiles.table import ProfileTable as ProfileTable

_MODULES = {
    "api.accuracies": ("Accuracies", "measure_accuracies"),
    "api.adding": ("add_models",),
    "api.asynchronous": ("AsyncDeployment", "deploy_async"),
    "api.cell_files": ("write_cells",),
    "api.cells": ("Cells",),
    "api.checking": ("check_models",),
    "api.compiling": ("compile",),
    "api.deploying": ("deploy",),
    "api.deployment": ("Deployment",),
    "api.exporting": (
        "export_compose",
        "export_envoy",
        "export_kubernetes",
        "export_systemd",
        "export_systemd_agent",
        "export_systemd_front",
    ),
    "api.files": ("load_cluster", "load_graph", "load_partition", "load_plan"),
    "api.graph_builder": ("GraphBuilder",),
    "api.planning": ("Capacity", "capacity", "explain", "load_problem", "plan", "plan_cells"),
    "api.profile_builder": ("ProfileBuilder",),
    "api.profile_files": ("load_profiles",),
    "api.profiles": ("check_profiles", "fit_profiles", "import_profiles", "report_profiles"),
    "api.rehearsing": ("Rehearsed", "rehearse"),
    "api.replaying": ("Replay", "SteadyTrials", "replay", "steady_trials"),
    "api.simulating": ("Simulated", "simulate"),
    "api.variants": ("make_variants",),
    "errors": (
        "ArtifactError",
        "Diagnostic",
        "GpuLostError",
        "InfeasibleError",
        "InputError",
        "InstanceInUseError",
        "InstanceNotFoundError",
        "JigsawError",
        "MigError",
        "MigTimeoutError",
        "MissingDependencyError",
        "OverloadedGatewayError",
        "OverloadedProcessorError",
        "PlacementError",
        "RefusedError",
        "ServerError",
        "SpecError",
        "StateError",
        "UnplacedError",
    ),
    "evaluation.replay": ("Contender",),
    "gpus.model": ("Cluster",),
    "graph.model": ("TaskGraph",),
    "graph.tensors": ("TensorType",),
    "planner.cells.model": ("Partition",),
    "planner.domain.plan": ("Plan",),
    "planner.domain.problem": ("Options", "Problem"),
    "planner.explain.explanation": ("Explanation",),
    "profiles.table": ("ProfileTable",),
}
"""Module below this package -> its public names."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Accuracies",
    "ArtifactError",
    "AsyncDeployment",
    "Capacity",
    "Cells",
    "Cluster",
    "Contender",
    "Deployment",
    "Diagnostic",
    "Explanation",
    "GpuLostError",
    "GraphBuilder",
    "InfeasibleError",
    "InputError",
    "InstanceInUseError",
    "InstanceNotFoundError",
    "JigsawError",
    "MigError",
    "MigTimeoutError",
    "MissingDependencyError",
    "Options",
    "OverloadedGatewayError",
    "OverloadedProcessorError",
    "Partition",
    "PlacementError",
    "Plan",
    "Problem",
    "ProfileBuilder",
    "ProfileTable",
    "RefusedError",
    "Rehearsed",
    "Replay",
    "ServerError",
    "Simulated",
    "SpecError",
    "StateError",
    "SteadyTrials",
    "TaskGraph",
    "TensorType",
    "UnplacedError",
    "add_models",
    "capacity",
    "check_models",
    "check_profiles",
    "compile",
    "deploy",
    "deploy_async",
    "explain",
    "export_compose",
    "export_envoy",
    "export_kubernetes",
    "export_systemd",
    "export_systemd_agent",
    "export_systemd_front",
    "fit_profiles",
    "import_profiles",
    "load_cluster",
    "load_graph",
    "load_partition",
    "load_plan",
    "load_problem",
    "load_profiles",
    "make_variants",
    "measure_accuracies",
    "plan",
    "plan_cells",
    "rehearse",
    "replay",
    "report_profiles",
    "simulate",
    "steady_trials",
    "write_cells",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
