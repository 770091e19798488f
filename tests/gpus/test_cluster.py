from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.gpus.model import Cluster, GatewayPorts
from jigsaw_triton.spec.load import load_cluster, parse_gpus
from tests.fakes.documents import CLUSTER, edited, line_of


def built(text: str, folder: Path) -> Cluster:
    (folder / "cluster.yaml").write_text(text)
    return build_cluster(load_cluster(folder), CATALOG)


def test_gpus_are_numbered_by_node_and_sorted(tmp_path: Path) -> None:
    cluster = built(CLUSTER, tmp_path)
    assert [(str(gpu.id), gpu.board.name) for gpu in cluster.gpus] == [
        ("a/0", "H100-80GB"),
        ("a/1", "A100-80GB"),
        ("a/2", "A100-80GB"),
        ("b/0", "A100-80GB"),
        ("b/1", "A100-80GB"),
    ]
    assert cluster.gateway == GatewayPorts(9000, 9001, 9002, "127.0.0.1")
    assert cluster.engine == "local"


def test_the_driver_is_the_document_s_or_else_what_was_found() -> None:
    loaded = parse_gpus("A100-80GB")
    assert build_cluster(loaded, CATALOG).driver == "emulated"
    assert build_cluster(loaded, CATALOG, driver="nvml").driver == "nvml"


def test_the_driver_of_the_document(tmp_path: Path) -> None:
    assert built(edited(CLUSTER, ("engine: local", "driver: nvml")), tmp_path).driver == "nvml"


@pytest.mark.parametrize(
    ("edit", "place", "words"),
    [
        (("H100-80GB", "H100-81GB"), "H100", "there is no GPU model 'H100-81GB'; did you mean 'H100-80GB'?"),
        (("H100-80GB", "zzz"), "zzz", "there is no GPU model 'zzz'; known models: "),
        (("- name: a", "- name: b"), "- name: b\n      gpus:\n", "node 'b' is repeated; the first is on line 6"),
        (("grpc: 9001", "grpc: 9000"), "gateway", "not distinct: http 9000, grpc 9000, metrics 9002"),
        (("http: 9000", "address: somewhere"), "gateway", "'somewhere' is not an IPv4 address; write 127.0.0.1"),
        (
            ("[{model: A100-80GB, count: 2}]", "[{model: A100-80GB, count: 4096}]"),
            "nodes",
            "the cluster has 4099 GPUs; at most 4096 are supported",
        ),
    ],
)
def test_mistakes(tmp_path: Path, edit: tuple[str, str], place: str, words: str) -> None:
    text = edited(CLUSTER, edit)
    line = 8 if "repeated" in words else line_of(text, place)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (problem,) = caught.value.diagnostics
    assert str(problem).startswith(f"{tmp_path}/cluster.yaml:{line}: ")
    assert words in str(problem)


def test_structure_and_meaning_come_together(tmp_path: Path) -> None:
    text = edited(CLUSTER, ("engine: local", "engine: rayy"), ("H100-80GB", "H100-81GB"), ("http: 9000", "http: 9001"))
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    assert len(caught.value.diagnostics) == 3


def test_an_unknown_model_on_the_command_line() -> None:
    with pytest.raises(
        SpecError, match=r"^--gpus: there is no GPU model 'A100'; did you mean 'A100-40GB' or 'A100-80GB'"
    ):
        build_cluster(parse_gpus("4xA100"), CATALOG)
