"""Sentences about the parts of a deployment or a plan that are emulated."""

from collections.abc import Mapping

from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph

EMULATED_MIG = "MIG: instances exist only in a state file; the GPUs are not real"
EMULATED_MPS = "MPS: servers that share an instance run side by side without a daemon"
EMULATED_CPU = "GPU time: models run on this machine's CPU, which all workers share"
EMULATED_VARIANTS = "models of template `emulated`: they wait for times as in the profile and return zeros"


def emulated_parts(graphs: Mapping[str, TaskGraph], cluster: Cluster) -> tuple[str, ...]:
    """Describes the emulated parts of graphs on a cluster, one sentence each."""
    parts = _emulated_cluster(cluster)
    variants = [v for graph in graphs.values() for task in graph.tasks.values() for v in task.variants]
    return (*parts, EMULATED_VARIANTS) if any(v.template == "emulated" for v in variants) else parts


def _emulated_cluster(cluster: Cluster) -> tuple[str, ...]:
    mig: tuple[str, ...] = ()
    if cluster.driver == "emulated":
        mig = (EMULATED_MIG, EMULATED_MPS) if cluster.processes == "mps" else (EMULATED_MIG,)
    return (*mig, EMULATED_CPU) if any(gpu.board.arch == "cpu" for gpu in cluster.gpus) else mig
