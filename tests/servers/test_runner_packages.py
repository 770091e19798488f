from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers import runner_packages
from jigsaw_triton.servers.runner_packages import (
    RUNNER_PACKAGES,
    installed_version,
    missing_packages,
    require_packages,
)
from jigsaw_triton.spec.load import load_graph
from tests.fakes.documents import GRAPH

TEMPLATES = load_templates(templates_dir())
PYTHON = frozenset({"python"})
TORCH = GRAPH.replace("{name: s, accuracy: 37.4, template: emulated", "{name: s, accuracy: 37.4, template: torch")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: None)
    monkeypatch.setattr(runner_packages, "package_folders", lambda: [])


def graph(folder: Path, text: str) -> TaskGraph:
    (folder / "graph.yaml").write_text(text)
    return build_graph(load_graph(folder), templates=frozenset(TEMPLATES))


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_package_is_reported_with_the_variant_that_needs_it(tmp_path: Path) -> None:
    torch = graph(tmp_path, TORCH)
    assert missing_packages(torch, TEMPLATES, PYTHON) == {"torch": "detect.s"}
    with pytest.raises(MissingDependencyError) as caught:
        require_packages([torch], TEMPLATES, PYTHON)
    assert caught.value.where == "traffic.detect.s"
    assert "needs the Python package torch" in caught.value.message
    assert caught.value.hint == "pip install 'jigsaw-triton[torch]'"


@pytest.mark.usefixtures("nothing_installed")
def test_other_templates_need_no_package(tmp_path: Path) -> None:
    require_packages([graph(tmp_path, GRAPH)], TEMPLATES, PYTHON)


def test_an_installed_package_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: object())
    assert missing_packages(graph(tmp_path, TORCH), TEMPLATES, PYTHON) == {}


@pytest.mark.usefixtures("nothing_installed")
def test_a_native_backend_needs_no_package(tmp_path: Path) -> None:
    onnx = graph(tmp_path, TORCH.replace("template: torch", "template: onnxruntime, artifacts: {model.onnx: m.onnx}"))
    assert missing_packages(onnx, TEMPLATES, PYTHON) == {"onnxruntime": "detect.s"}
    assert missing_packages(onnx, TEMPLATES, PYTHON | {"onnxruntime"}) == {}


def test_a_package_from_another_distribution_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(runner_packages, "version", unknown)
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: object())
    assert installed_version("torch") == "unknown version"


def test_onnxruntime_counts_as_installed_if_workers_find_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: object())
    monkeypatch.setattr(runner_packages, "package_folders", lambda: ["/nowhere", str(tmp_path)])
    monkeypatch.setattr(runner_packages, "version", lambda _: "1.18.0")
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "onnxruntime_pybind11_state.so").touch()
    assert installed_version("onnxruntime") is None
    onnx = graph(tmp_path, TORCH.replace("template: torch", "template: onnxruntime, artifacts: {model.onnx: m.onnx}"))
    with pytest.raises(MissingDependencyError, match=r"needs the Python package onnxruntime 1\.20 or later"):
        require_packages([onnx], TEMPLATES, PYTHON)
    (capi / "libonnxruntime.so.1.20.0").touch()
    assert installed_version("onnxruntime") == "1.18.0"
    require_packages([onnx], TEMPLATES, PYTHON)


def test_each_package_has_a_template_of_its_name() -> None:
    assert set(RUNNER_PACKAGES) <= TEMPLATES.keys()
