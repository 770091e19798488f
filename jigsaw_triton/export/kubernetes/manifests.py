"""The files of the manifests, and the steps from them to a deployment that serves."""

import shlex
from collections.abc import Mapping, Sequence

from jigsaw_triton.export.kubernetes import agents, controller, network, raycluster
from jigsaw_triton.export.kubernetes.settings import CONTROLLER, NODE_LABEL, RAY, Object, Settings, agent_name
from jigsaw_triton.spec.yaml_writer import dump_yaml

KUSTOMIZATION = "kustomization.yaml"


def manifests(settings: Settings) -> dict[str, str]:
    """Returns the text of each file by its name."""
    described: Mapping[str, tuple[str, Sequence[Object]]] = {
        "namespace.yaml": ("The namespace, and service accounts without any right.", network.namespace(settings)),
        "config.yaml": ("cluster.yaml, and the files of the graphs.", controller.config_maps(settings)),
        **(
            {"raycluster.yaml": (raycluster.comment(settings), raycluster.ray_cluster(settings))}
            if settings.ray
            else {"agents.yaml": (agents.comment(settings), agents.agents(settings))}
        ),
        "controller.yaml": (controller.COMMENT, controller.controller(settings)),
        "network.yaml": (
            "The Service for clients, and policies that let them reach the gateway, and the controller the agents.",
            network.network(settings),
        ),
        "routes.yaml": ("Routes of the Gateway API to the gateway.", network.routes(settings)),
        "monitor.yaml": ("Lets the Prometheus Operator collect the gateway's metrics.", network.monitor(settings)),
    }
    files = {name: _text(comment, objects) for name, (comment, objects) in described.items() if objects}
    kustomization: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": settings.namespace,
        "resources": list(files),
    }
    return {**files, KUSTOMIZATION: _text("\n".join(_steps(settings)), [kustomization])}


def _steps(settings: Settings) -> list[str]:
    """Returns the steps from these files to a deployment, and to an update of it."""
    space = f"--namespace {settings.namespace}"
    update = shlex.join(controller.update_command(settings))
    return [
        "Install, where DIR is the folder of these files:",
        "  kubectl apply --filename DIR/namespace.yaml",
        *(
            f"  kubectl label node KUBERNETES_NODE {NODE_LABEL}={node}"
            for node in settings.nodes  # Names of Kubernetes nodes need not be those of cluster.yaml.
        ),
        *_secrets(settings, space),
        *(
            (
                "  # The edge's files:",
                f"  kubectl {space} create secret generic edge "
                + " ".join(
                    f"--from-file={name}={shlex.quote(path)}" for name, path in settings.cluster.edge_files.items()
                ),
            )
            if settings.cluster.edge_files
            else ()
        ),
        "  kubectl apply --server-side --kustomize DIR",
        "Update the running deployment after a change of the graphs, without losing a request: apply again, wait until",
        "the container sees the new files (about a minute), then",
        f"  kubectl {space} exec deployment/{CONTROLLER} -- {update}",
    ]


def _secrets(settings: Settings, space: str) -> list[str]:
    """Returns the commands that create the Secrets: certificates, or with Ray its token alone."""
    if settings.ray:
        return [f'  kubectl {space} create secret generic {RAY} --from-literal=auth_token="$(openssl rand -hex 32)"']
    nodes = [_secret(space, agent_name(node), f"certificates/{node}") for node in settings.nodes]
    return [*nodes, _secret(space, CONTROLLER, "certificates/controller")]


def _secret(space: str, name: str, folder: str) -> str:
    return f"  kubectl {space} create secret generic {name} --from-file={folder}"


def _text(comment: str, objects: Sequence[Object]) -> str:
    lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.rstrip().splitlines())
    return lines + "---\n".join(dump_yaml(made) for made in objects)
