"""Properties of all manifests, and their validation by the schemas of Kubernetes."""

import shlex
from collections import Counter
from typing import Any

import pytest
import yaml

from jigsaw_triton.export.kubernetes.manifests import manifests
from jigsaw_triton.export.kubernetes.settings import NODE_LABEL
from tests.export.kubernetes.samples import ALL, FULL, PLAIN, RAY, objects, of_kind, pods, templates

CUSTOM = ("HTTPRoute", "GRPCRoute", "ServiceMonitor", "RayCluster")
"""Kinds that Kubernetes itself does not have."""

VERSIONS = ("1.31", "1.35")
settings = pytest.mark.parametrize("settings", ALL.values(), ids=ALL)


def strict(made: dict[str, Any], version: str) -> None:
    """Validates an object against the schemas of a version of Kubernetes, without unknown fields."""
    try:
        import kubernetes_validate
    except ImportError:
        pytest.skip("kubernetes-validate is not installed (extra dev)")
    kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@settings
def test_kubernetes_accepts_the_objects(settings: Any, version: str) -> None:
    for made in objects(settings):
        if made["kind"] not in CUSTOM:
            strict(made, version)
    for name, template in templates(settings).items():
        strict({"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name}}, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_refuses_an_unknown_field(version: str) -> None:
    made = of_kind(PLAIN, "Deployment")["controller"]
    made["spec"]["template"]["spec"]["containers"][0]["probe"] = {}
    with pytest.raises(Exception, match="probe"):
        strict(made, version)


@settings
def test_the_kustomization_names_every_file(settings: Any) -> None:
    files = manifests(settings)
    kustomization = yaml.safe_load(files["kustomization.yaml"])
    assert kustomization["kind"] == "Kustomization"
    assert kustomization["resources"] == [name for name in files if name != "kustomization.yaml"]


@settings
def test_names_are_unique_and_in_one_namespace(settings: Any) -> None:
    found = objects(settings)
    assert max(Counter((made["kind"], made["metadata"]["name"]) for made in found).values()) == 1
    assert {made["metadata"].get("namespace") for made in found if made["kind"] != "Namespace"} == {"serving"}
    assert list(of_kind(settings, "Namespace")) == ["serving"]


@settings
def test_every_reference_names_an_object_or_one_that_the_user_is_told_to_make(settings: Any) -> None:
    steps = manifests(settings)["kustomization.yaml"]
    for pod in pods(settings).values():
        for entry in pod["containers"][0]["env"]:
            if "valueFrom" in entry:
                assert f"create secret generic {entry['valueFrom']['secretKeyRef']['name']} " in steps
        assert pod["serviceAccountName"] in of_kind(settings, "ServiceAccount")
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in of_kind(settings, "ConfigMap")
            elif "secret" in volume:
                assert f"create secret generic {volume['secret']['secretName']} " in steps
            elif "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                assert name in of_kind(settings, "PersistentVolumeClaim") or name == settings.models
        mounted = [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
        assert sorted(mounted) == sorted(volume["name"] for volume in pod["volumes"])


@settings
def test_selectors_find_exactly_the_pods_of_their_component(settings: Any) -> None:
    labels = {name: made["metadata"]["labels"] for name, made in templates(settings).items()}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, have in labels.items() if selector.items() <= have.items()}

    agents = {"agent-a", "agent-b"}
    for kind in ("Deployment", "DaemonSet"):
        for name, made in of_kind(settings, kind).items():
            assert found(made["spec"]["selector"]["matchLabels"]) == {name}
    services = {name: found(made["spec"]["selector"]) for name, made in of_kind(settings, "Service").items()}
    own = {} if settings.ray else {"agent-a": {"agent-a"}, "agent-b": {"agent-b"}}
    assert services == {"gateway": {"controller"}, **own}
    policies = of_kind(settings, "NetworkPolicy")
    chosen = {name: found(made["spec"]["podSelector"]["matchLabels"]) for name, made in policies.items()}
    assert set().union(*chosen.values()) == labels.keys()
    (rule,) = policies["agents-from-controller"]["spec"]["ingress"]
    assert chosen["agents-from-controller"] == agents
    assert [found(peer["podSelector"]["matchLabels"]) for peer in rule["from"]] == [{"controller"}]
    (budget,) = of_kind(settings, "PodDisruptionBudget").values()
    assert found(budget["spec"]["selector"]["matchLabels"]) == {"controller"}


@settings
def test_named_ports_exist(settings: Any) -> None:
    ports = {port["name"] for pod in pods(settings).values() for port in pod["containers"][0]["ports"]}
    ports -= {"gcs", "raylet"}  # Pods of Ray reach each other on all ports.
    services = of_kind(settings, "Service")
    by_service = {port["targetPort"] for made in services.values() for port in made["spec"]["ports"]}
    assert by_service | ({"agent", "client"} if settings.ray else set()) == ports
    rules = [rule for made in of_kind(settings, "NetworkPolicy").values() for rule in made["spec"]["ingress"]]
    assert {port["port"] for rule in rules for port in rule.get("ports", ())} == ports


@settings
def test_no_secret_and_no_right_of_the_api_server_is_in_the_manifests(settings: Any) -> None:
    kinds = {made["kind"] for made in objects(settings)}
    assert not kinds & {"Secret", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Lease"}
    for pod in pods(settings).values():
        assert pod["automountServiceAccountToken"] is False
    for made in of_kind(settings, "ServiceAccount").values():
        assert made["automountServiceAccountToken"] is False
    assert "BEGIN" not in "".join(manifests(settings).values())


def test_the_steps_are_commands_for_every_node_and_secret() -> None:
    lines = [line.removeprefix("#").strip() for line in manifests(FULL)["kustomization.yaml"].splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("kubectl ")]
    labelled = [words[-1] for words in commands if words[1] == "label"]
    assert labelled == [f"{NODE_LABEL}=a", f"{NODE_LABEL}=b"]
    secrets = {words[words.index("generic") + 1]: words for words in commands if "secret" in words}
    assert secrets.keys() == {"agent-a", "agent-b", "controller", "edge"}
    assert "--from-file=key.pem=secret/key.pem" in secrets["edge"]
    update = next(words for words in commands if "exec" in words)
    hook = pods(FULL)["controller"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"]
    deploy = hook[hook.index("jigsaw-triton") :]
    assert update[update.index("--") + 1 :] == deploy


def test_under_ray_the_only_secret_is_its_token() -> None:
    lines = [line.removeprefix("#").strip() for line in manifests(RAY)["kustomization.yaml"].splitlines()]
    (secret,) = [shlex.split(line) for line in lines if "create secret" in line]
    assert secret[secret.index("generic") + 1] == "ray"
    assert secret[-1].startswith("--from-literal=auth_token=")
