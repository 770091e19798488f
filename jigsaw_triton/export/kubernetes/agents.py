"""The agents: for each node a DaemonSet of one pod, and a Service with its address.

One DaemonSet for all nodes would give all of them the keys of all, because pods of a DaemonSet mount the same Secrets,
and its pods would have no names that a cluster.yaml can contain.
"""

from jigsaw_triton.export.commands import MIG_VARIABLES, PROGRAM, Agent
from jigsaw_triton.export.kubernetes.settings import (
    AGENT,
    AGENT_PORT,
    CERTIFICATES,
    NODE_LABEL,
    STATE,
    Object,
    Settings,
    agent_name,
    environment,
    labels,
    metadata,
    scratch_mounts,
    scratch_volumes,
    unprivileged_container,
    unprivileged_pod,
)
from jigsaw_triton.spec.yaml_writer import Block

RESTARTING = Block(
    """\
# The container lives as long as this shell, so that servers outlive a program that dies.
trap 'stop=1; kill -TERM "$program" 2>/dev/null' TERM INT
while [ -z "$stop" ]; do
  "$@" & program=$!
  # The first wait ends at a signal, the second when the program has ended.
  wait "$program"; wait "$program"
  [ -n "$stop" ] || sleep 1
done
"""
)
"""Script for `sh -c` that runs its arguments, and again whenever they end, until SIGTERM."""

COMMENT = """\
The agents, one on each node with the label {label}: NODE, where NODE is its name in cluster.yaml.

{off_and_rights}

{restarts}
"""

OFF_AND_RIGHTS = """\
What changes MIG must be off on these nodes, because it would destroy instances that it does not know, or wait for them:
{off}

{rights}"""

_RESTARTS = """\
A change of these manifests restarts no agent (OnDelete), because the end of an agent's pod ends the node's servers.
For each node in turn, run `jigsaw-triton node drain NODE` in the controller's pod, delete the agent's pod, and run
`jigsaw-triton node uncordon NODE`.
There is no liveness probe for the same reason: the shell in the container restarts an agent that dies."""

OFF = (
    "NVIDIA's device plugin, or its MIG strategy (label nvidia.com/gpu.deploy.device-plugin=false): else pods get GPUs "
    "that these agents cut",
    "the GPU Operator's MIG manager (label nvidia.com/gpu.deploy.mig-manager=false)",
    "NVIDIA's DRA driver for GPUs, which at its start destroys MIG instances that it does not know: keep its kubelet "
    "plugin off these nodes by its node selector or affinity",
)
"""Programs that must not run on the nodes, each with the way to turn it off."""

PRIVILEGED = {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
"""Security context of a container that changes MIG."""

_PRIVILEGED = """\
The containers are privileged, for these reasons and no other. Changing MIG in a container needs CAP_SYS_ADMIN and
NVIDIA_MIG_CONFIG_DEVICES. A new MIG instance has new device files, which a container that started before may open only
if it is privileged, because Kubernetes has no other way to widen a container's list of devices. The pods share no
namespace with the host, get no token of the API server, and mount one folder of the host, their state."""

_UNPRIVILEGED = "The driver is emulated, so that the pods need no privilege."


def agents(settings: Settings) -> list[Object]:
    """Returns the DaemonSets and Services of the agents."""
    return [made for node in settings.nodes for made in (_daemon_set(settings, node), _service(settings, node))]


def comment(settings: Settings) -> str:
    """Returns the comment at the head of the agents' file."""
    return COMMENT.format(label=NODE_LABEL, off_and_rights=off_and_rights(settings), restarts=_RESTARTS)


def off_and_rights(settings: Settings) -> str:
    """Returns what must be off on the nodes, and why the containers of agents are privileged."""
    rights = _PRIVILEGED if settings.driver == "nvml" else _UNPRIVILEGED
    return OFF_AND_RIGHTS.format(off="\n".join(f"- {text}" for text in OFF), rights=rights)


def _daemon_set(settings: Settings, node: str) -> Object:
    name = agent_name(node)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(settings, name, AGENT),
        "spec": {
            "selector": {"matchLabels": labels(AGENT, node)},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": labels(AGENT, node)},
                "spec": _pod(settings, node),
            },
        },
    }


def _pod(settings: Settings, node: str) -> Object:
    real = settings.driver == "nvml"
    agent = Agent(
        name=node,
        listen=f"0.0.0.0:{AGENT_PORT}",
        certificates=CERTIFICATES,
        state=STATE,
    )
    container = {
        **agent_container(settings),
        "command": ["/bin/sh", "-c", RESTARTING, AGENT],
        "args": [PROGRAM, *agent.arguments],
        "readinessProbe": {"tcpSocket": {"port": AGENT}, "periodSeconds": 5},
    }
    container["volumeMounts"].append({"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True})
    pod = agent_pod(settings, node, container)
    secret = {"secretName": agent_name(node), "defaultMode": 0o400 if real else 0o440}
    pod["volumes"].append({"name": "certificates", "secret": secret})
    return pod


def agent_container(settings: Settings) -> Object:
    """Returns the container in which an agent runs, without its command, probes and certificates."""
    real = settings.driver == "nvml"
    mig: list[Object] = [
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
        *({"name": variable, "value": "all"} for variable in MIG_VARIABLES),
    ]
    return {
        "name": AGENT,
        "image": settings.image,
        "env": [*environment(), *(mig if real else [])],
        "ports": [{"name": AGENT, "containerPort": AGENT_PORT}],
        # The servers of a node have no limit: the node is theirs.
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
        "securityContext": PRIVILEGED if real else unprivileged_container(),
        "volumeMounts": [{"name": "state", "mountPath": STATE}, *scratch_mounts()],
    }


def agent_pod(settings: Settings, node: str, container: Object) -> Object:
    """Returns the pod of a node's agent, with a volume for the state of the node."""
    real = settings.driver == "nvml"
    # The journal of the node outlives the pod. By it the next agent finds the MIG instances of this one.
    on_host = {"hostPath": {"path": f"{STATE}/{settings.namespace}", "type": "DirectoryOrCreate"}}
    pod: Object = {
        "nodeSelector": {NODE_LABEL: node},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [{"name": "state", **(on_host if real else {"emptyDir": {}})}, *scratch_volumes()],
    }
    if real and settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    if not real:
        pod["securityContext"] = unprivileged_pod()
    return pod


def _service(settings: Settings, node: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(settings, agent_name(node), AGENT),
        "spec": {
            "selector": labels(AGENT, node),
            # The controller decides itself whether an agent can be used.
            "publishNotReadyAddresses": True,
            "ports": [{"name": AGENT, "port": AGENT_PORT, "targetPort": AGENT}],
        },
    }
