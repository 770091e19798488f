"""Graphs that are built in Python."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import jigsaw_triton as jt
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.spec.load import load_graph, load_graph_text
from tests.api.built import line_of, mistakes
from tests.fakes import graphs
from tests.fakes.documents import GRAPH, TEMPLATES, built

FRAME, CROPS = jt.TensorType("UINT8", (-1, -1, 3)), jt.TensorType("FP32", (-1, 3, 64, 64))
BOXES, SCORE, LABEL = jt.TensorType("FP32", (-1, 4)), jt.TensorType("FP32", (1,)), jt.TensorType("INT64", (1,))


def traffic(folder: Path) -> jt.GraphBuilder:
    """The graph of `documents.GRAPH`."""
    return (
        jt.GraphBuilder("traffic", latency_ms=250, accuracy=0.9, folder=folder)
        .input("FRAME", FRAME)
        .task("detect", inputs={"IMAGE": "inputs.FRAME"}, outputs={"BOXES": BOXES, "CROPS": CROPS, "SCORE": SCORE})
        .variant("n", accuracy=28.0, template="emulated", yields={"CROPS": 2.6})
        .variant("s", accuracy=37.4, template="emulated", yields={"CROPS": 5.5})
        .task(
            "classify",
            for_each="detect.CROPS",
            when="detect.SCORE",
            above=0.5,
            probability=0.7,
            inputs={"CROP": "detect.CROPS"},
            outputs={"LABEL": LABEL},
        )
        .variant("a", accuracy=1, template="emulated")
        .output("BOXES", "detect.BOXES")
        .output("LABELS", "classify.LABEL")
    )


def test_a_built_graph_equals_the_one_from_yaml(tmp_path: Path) -> None:
    assert traffic(tmp_path).build() == built(GRAPH, tmp_path)


def test_a_graph_with_every_entry_equals_the_one_from_its_yaml(tmp_path: Path) -> None:
    (tmp_path / "crop.py").write_text("def step(BOXES): ...\n")
    (tmp_path / "n.onnx").touch()
    graph = (
        jt.GraphBuilder(
            "all",
            latency_ms=99.5,
            percentile=95,
            accuracy=0.5,
            accuracy_mode="mean",
            folder=tmp_path,
            target="bls",
            overload="queue",
            priority=3,
            weight=0.5,
        )
        .input("ROWS", BOXES, rows=7, sample="rows.npy")
        .task(
            "detect",
            for_each="inputs.ROWS",
            inputs={"ROW": "inputs.ROWS"},
            outputs={"BOXES": BOXES, "SCORE": SCORE},
            counts={"COUNT": "BOXES"},
            retry="never",
        )
        .variant(
            "n",
            accuracy=28,
            template="onnxruntime",
            artifacts={"model.onnx": "n.onnx"},
            parameters={"threshold": 0.5, "fast": True, "name": "1e3"},
            yields={"BOXES": 2.5},
        )
        .step("crop", python="crop.py", inputs={"BOXES": "detect.BOXES"}, outputs={"CROPS": CROPS}, retry="never")
        .task("classify", for_each="crop.CROPS", inputs={"CROP": "crop.CROPS"}, outputs={"LABEL": LABEL})
        .variant("a", accuracy=1, template="emulated")
        .output("LABELS", "classify.LABEL")
        .output("COUNT", "detect.COUNT")
        .output("SCORE", "detect.SCORE")
    )
    graph._spec["tasks"]["crop"]["yields"] = {"CROPS": 3.0}
    graph._record(("spec", "tasks", "crop", "yields"), {"CROPS": 3.0})
    made = graph.build()
    assert made.tasks["detect"].variants[0].parameters == {"threshold": "0.5", "fast": "true", "name": "1e3"}
    loaded = load_graph_text(made.to_yaml(), name="all", folder=tmp_path)
    assert build_graph(loaded, templates=TEMPLATES) == made


@pytest.mark.parametrize("path", sorted(applications_dir().glob("*/graph.yaml")), ids=lambda path: path.parent.name)
def test_the_yaml_of_a_ready_application_loads_to_an_equal_graph(path: Path, tmp_path: Path) -> None:
    graph = jt.load_graph(path)
    folder = tmp_path / path.parent.name
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("models", "__pycache__"))
    (folder / "graph.yaml").write_text(graph.to_yaml())
    again = load_graph_text(graph.to_yaml(), name="graph.yaml", folder=graph.folder)
    assert build_graph(again, templates=("onnxruntime", "python", "torch", "emulated")) == graph
    assert jt.load_graph(folder).tasks.keys() == graph.tasks.keys()


@pytest.mark.parametrize(
    "graph",
    [graphs.chain(5), graphs.fan_out(rows=1.5), graphs.diamond(variant_count=3), graphs.conditional(), graphs.nested()],
    ids=lambda g: g.name,
)
def test_the_yaml_of_a_graph_loads_to_an_equal_graph(graph: jt.TaskGraph, tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(graph.to_yaml())
    loaded = build_graph(load_graph(tmp_path), templates=TEMPLATES)
    assert replace(loaded, folder=Path()) == graph
    assert loaded.to_yaml() == graph.to_yaml()


def test_a_file_outside_the_folder_cannot_be_written_to_yaml(tmp_path: Path) -> None:
    graph = traffic(tmp_path).build()
    moved = replace(graph, folder=tmp_path / "other", samples={"FRAME": tmp_path / "frame.npy"})
    with pytest.raises(jt.InputError, match=r"frame\.npy: the file is outside the folder of the graph"):
        moved.to_yaml()


def test_notebooks_show_the_drawing_of_a_graph(tmp_path: Path) -> None:
    graph = traffic(tmp_path).build()
    assert graph._repr_html_() == graph.to_svg()
    assert graph.to_svg().startswith("<svg ")


def test_mistakes_name_the_call_that_made_them(tmp_path: Path) -> None:
    builder = (
        jt.GraphBuilder("traffic", latency_ms=-1, folder=tmp_path)
        .input("FRAME", FRAME)
        .task("detect", inputs={"IMAGE": "inputs.FRAM"}, outputs={"LABEL": LABEL})
        .variant("n", accuracy=28.0, template="emulate")
        .variant("n", accuracy=0, template="emulated")
        .output("LABEL", "detect.LABEL")
    )
    found, template = mistakes(builder), line_of('template="emulate"')
    assert all(line.startswith(f"{__file__}:") for line in found)
    assert [re.sub(r"^.*\.py:", "", line) for line in found] == [
        f"{line_of('latency_ms=-1')}: spec.slo.latency_ms is -1; it must be greater than 0",
        f"{line_of('inputs.FRAM')}: 'inputs.FRAM': the graph has no input 'FRAM'; did you mean 'FRAME'?",
        f"{template}: there is no template 'emulate'; did you mean 'emulated'?",
        f"{line_of('accuracy=0')}: spec.tasks.detect.variants[1].accuracy is 0; it must be greater than 0",
    ]


def test_an_entry_that_is_added_twice_is_a_mistake(tmp_path: Path) -> None:
    builder = traffic(tmp_path)
    builder.output("BOXES", "detect.CROPS").variant("n", accuracy=1, template="emulated")
    builder.task("detect", inputs={"IMAGE": "inputs.FRAME"}, outputs={"BOXES": BOXES})
    assert [re.sub(r"^.*\.py:\d+: ", "", line).partition(";")[0] for line in mistakes(builder)] == [
        "'BOXES' is added twice",
        "'detect' is added twice",
    ]


def test_a_variant_needs_a_task() -> None:
    with pytest.raises(jt.InputError, match=r"test_graph_builder\.py:\d+: the variant n has no task"):
        jt.GraphBuilder("g", latency_ms=1).variant("n", accuracy=1, template="emulated")


def test_model_files_are_looked_for_on_request(tmp_path: Path) -> None:
    builder = (
        jt.GraphBuilder("g", latency_ms=9, folder=tmp_path)
        .input("X", SCORE)
        .task("t", inputs={"X": "inputs.X"}, outputs={"Y": SCORE})
        .variant("n", accuracy=1, template="onnxruntime", artifacts={"model.onnx": "n.onnx"})
        .output("Y", "t.Y")
    )
    builder.build()
    with pytest.raises(jt.SpecError, match=r"there is no file 'n\.onnx'"):
        builder.build(require_files=True)
