"""The programs that a deployment's servers run: found on this machine, or downloaded."""

from collections.abc import Callable

from jigsaw_triton.api.reporting import download_progress
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.haproxy.program import find_haproxy
from jigsaw_triton.servers.image import pull_image
from jigsaw_triton.servers.installation import Installation, find_installation, require_compiled_backend
from jigsaw_triton.servers.mps import find_control
from jigsaw_triton.servers.runner_packages import require_packages


def ensure_programs(wanted: Wanted, report: Callable[[str], None]) -> Installation:
    """Finds or downloads everything that the servers run, so that the user sees a download before the start.

    Args:
        wanted: Graphs, and the cluster to serve on.
        report: Function that receives progress.

    Returns:
        The tritonserver of this machine.

    Raises:
        MissingDependencyError: This machine lacks something; the hint says how to get it.
        ArtifactError: A download failed.
    """
    cluster = wanted.cluster
    if cluster.processes == "mps" and cluster.driver == "nvml":
        find_control()
    for image in (cluster.image, cluster.gateway_image):
        if image is not None:
            report(f"looking for the image {image.name}; pulling it takes minutes")
            pull_image(image)
    if cluster.edge is not None:
        report("looking for HAProxy")
        find_haproxy(download_progress(report))
    report("looking for tritonserver")
    return find_server(wanted, report)


def find_server(wanted: Wanted, report: Callable[[str], None]) -> Installation:
    """Finds or downloads a tritonserver that can run the gateway, and checks the packages that workers need.

    Args:
        wanted: Graphs, and the cluster to serve on.
        report: Function that receives the progress of a download.

    Raises:
        MissingDependencyError: This machine lacks something; the hint says how to get it.
        ArtifactError: The download failed.
    """
    found = find_installation(download_progress(report))
    if wanted.cluster.image is None:
        require_packages(wanted.graphs.values(), load_templates(templates_dir()), found.backends)
    return require_compiled_backend(found)
