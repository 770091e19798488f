import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.spec.load import load_cluster, load_graph, parse_gpus
from jigsaw_triton.spec.words import LOCAL_NODE
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES
from tests.fakes.documents import CLUSTER, GRAPH, edited, line_of


def problems(path: Path) -> list[str]:
    """Returns the diagnostics of `load_graph`, without the file's path."""
    try:
        found = load_graph(path).problems
    except SpecError as error:
        found = error.diagnostics
    return [str(problem).replace(str(path), "FILE").removeprefix("FILE:") for problem in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "graph.yaml"


# Edit; text on the line that the diagnostic names; part of the message.
MISTAKES = {
    "unknown key": (("latency_ms: 250", "latency_ms: 250\n    percentil: 9"), "percentil", "mean 'percentile'?"),
    "unknown key, none similar": (("    accuracy: 0.9", "    zzz: 1"), "zzz", "known keys: accuracy, accuracy_mode"),
    "missing": (
        ("    latency_ms: 250\n", ""),
        "  slo:",
        "missing key 'latency_ms' in spec.slo; add, for example, latency_ms: 250",
    ),
    "missing in an item": (("name: n, ", ""), "accuracy: 28.0", "key 'name' in spec.tasks.detect.variants[0]; add"),
    "text for a number": (
        ("250", "fast"),
        "latency_ms",
        "must be a number, not 'fast'; write, for example, latency_ms: 250",
    ),
    "quoted number": (("250", "'250'"), "latency_ms", "latency_ms must be a number, not '250'"),
    "boolean for a number": (("250", "true"), "latency_ms", "must be a number, not true"),
    "nothing for a number": (("250", ""), "latency_ms", "must be a number, not empty"),
    "list for a mapping": (("{name: traffic}", "[traffic]"), "metadata", "must be a mapping, not a list; write, for"),
    "number for a name": (("{name: traffic}", "{name: 7}"), "metadata", "name must be text, not 7; write, for"),
    "too small": (("250", "0"), "latency_ms", "spec.slo.latency_ms is 0; it must be greater than 0"),
    "too large": (("accuracy: 0.9", "accuracy: 1.5"), "1.5", "spec.slo.accuracy is 1.5; it must be at most 1"),
    "percentile of 100": (("  slo:", "  slo:\n    percentile: 100"), "percentile", "it must be less than 100"),
    "accuracy of a variant": (("28.0", "0"), "name: n", "variants[0].accuracy is 0; it must be greater than 0"),
    "probability": (("0.7}", "0}"), "when:", "when.probability is 0; it must be greater than 0"),
    "yields": (("2.6", "-1"), "name: n", "yields.CROPS is -1; it must be greater than 0"),
    "unknown choice": (("  slo:", "  target: ensembel\n  slo:"), "target", "'ensembel'; did you mean 'ensemble'?"),
    "unknown target": (("  slo:", "  target: grph\n  slo:"), "target", "'grph'; did you mean 'graph'?"),
    "unknown overload": (("  slo:", "  overload: quue\n  slo:"), "overload", "'quue'; did you mean 'queue'?"),
    "unknown retry": (
        ("      for_each:", "      retry: nevr\n      for_each:"),
        "retry",
        "'nevr'; did you mean 'never'?",
    ),
    "priority": (
        ("  slo:", "  priority: 1.5\n  slo:"),
        "priority",
        "spec.priority must be a whole number, not 1.5; write",
    ),
    "priority too large": (("  slo:", "  priority: 9999\n  slo:"), "priority", "is 9999; it must be at most 1000"),
    "weight": (("  slo:", "  weight: 0\n  slo:"), "weight", "spec.weight is 0; it must be greater than 0"),
    "data type of another framework": (
        ("INT64", "float32"),
        "LABEL: {",
        "LABEL.dtype is 'float32'; did you mean 'FP32'?",
    ),
    "data type misspelt": (("INT64", "TYPE_INT64"), "LABEL: {", "did you mean 'INT64'?"),
    "dimension 0": (("[-1, -1, 3]", "[0, -1, 3]"), "FRAME:", "shape[0] is 0; a dimension must be at least 1, or"),
    "dimension -2": (("[-1, -1, 3]", "[-2, -1, 3]"), "FRAME:", "shape[0] is -2; it must be at least -1"),
    "fractional dimension": (("[-1, -1, 3]", "[1.5]"), "FRAME:", "shape[0] must be a whole number, not 1.5; write"),
    "no dimension": (("[-1, -1, 3]", "[]"), "FRAME:", "must not be empty; write, for example, shape: [-1, 3, 64, 64]"),
    "name": (("    classify:", "    9lives:"), "9lives", "not a valid name (spec.tasks.9lives); a name starts"),
    "dotted name": (("{name: traffic}", "{name: a.b}"), "metadata", "'a.b' is not a valid name"),
    "no variants": (
        ("variants:\n        - {name: a, accuracy: 1, template: emulated}", "variants: []"),
        "variants: []",
        "spec.tasks.classify.variants must not be empty; write, for example, variants: [{",
    ),
    "version": (("jigsaw-triton/v1", "jigsaw-triton/v9"), "v9", "is 'jigsaw-triton/v9'; it must be jigsaw-triton/v1"),
    "kind": (("TaskGraph", "Cluster"), "kind", "kind is 'Cluster'; it must be TaskGraph"),
    "not a number": (("28.0", ".nan"), "name: n", ".nan is not a finite number"),
    "duplicate key": (
        ("    classify:", "    detect:"),
        "    detect: ",
        "duplicate key 'detect'; keep one; the first is",
    ),
}


@pytest.mark.parametrize(("edit", "place", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_reported_once_with_its_line(file: Path, edit: tuple[str, str], place: str, words: str) -> None:
    text = edited(GRAPH, edit)
    if "duplicate" in words:
        line = max(n for n, written in enumerate(text.splitlines(), 1) if written.startswith(place.rstrip()))
    else:
        line = line_of(text, place)
    file.write_text(text)
    found = problems(file)
    assert len(found) == 1, found
    assert found[0].startswith(f"{line}: ")
    assert words in found[0]


def test_all_mistakes_are_reported_in_the_order_of_their_lines(file: Path) -> None:
    edits = [
        MISTAKES[name][0] for name in ("missing", "dimension 0", "not a number", "data type misspelt", "probability")
    ]
    file.write_text(edited(GRAPH, *edits))
    found = problems(file)
    assert len(found) == 5
    lines = [int(problem.partition(":")[0]) for problem in found]
    assert lines == sorted(lines)


def test_the_rest_of_a_broken_file_is_kept(file: Path) -> None:
    edits = [MISTAKES[name][0] for name in ("missing", "accuracy of a variant", "probability")]
    file.write_text(edited(GRAPH, *edits))
    loaded = load_graph(file)
    spec = loaded.document.spec
    assert [variant.name for variant in spec.tasks["detect"].variants] == ["s"]
    assert loaded.source.line(("spec", "tasks", "detect", "variants", 0)) == line_of(GRAPH, "name: s") - 1
    assert ("spec", "tasks", "detect", "variants", 0) in loaded.dropped
    assert loaded.problems


def test_a_file_of_another_kind_is_reported_only_as_such(file: Path) -> None:
    file.write_text("name: my-project\nversion: 3\n")
    assert problems(file) == [
        "1: missing key 'apiVersion' in the document; add apiVersion: jigsaw-triton/v1",
        "1: missing key 'kind' in the document; add kind: TaskGraph",
    ]


def test_a_folder_stands_for_the_file_in_it(file: Path, tmp_path: Path) -> None:
    file.write_text(GRAPH)
    loaded = load_graph(tmp_path)
    assert loaded.source.file == str(file)
    assert loaded.folder == tmp_path.resolve()
    assert loaded.document.metadata.name == "traffic"


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(GRAPH.encode())))
    loaded = load_graph("-")
    assert loaded.document.metadata.name == "traffic"
    assert loaded.folder == tmp_path.resolve()


def test_short_and_long_forms_of_inputs_are_equal(file: Path) -> None:
    file.write_text(edited(GRAPH, ("CROP: detect.CROPS", "CROP: {from: detect.CROPS}")))
    long = load_graph(file).document
    file.write_text(GRAPH)
    assert load_graph(file).document == long


def test_parameters_become_text(file: Path) -> None:
    file.write_text(edited(GRAPH, ("accuracy: 1,", "accuracy: 1, parameters: {a: true, b: 3, c: 0.5, d: x},")))
    variant = load_graph(file).document.spec.tasks["classify"].variants[0]
    assert variant.parameters == {"a": "true", "b": "3", "c": "0.5", "d": "x"}


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == [" there is no such file; check the path"]


def test_a_folder_without_the_file_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["FILE/graph.yaml: there is no such file; check the path"]


def test_a_device_is_not_read() -> None:
    assert problems(Path("/dev/zero")) == [" this is not a regular file; check the path"]


def test_a_large_file_is_not_parsed(file: Path) -> None:
    file.write_text("#" * (LIMIT_BYTES + 1))
    assert problems(file) == [" the file is larger than 1024 KiB; split it, or remove what is not needed"]


def test_latin_1_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b"a: 1\nb: caf\xe9\n")
    assert problems(file) == ["2: the file is not UTF-8 text; save it as UTF-8"]


def test_a_byte_order_mark_is_accepted(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + GRAPH.encode())
    assert problems(file) == []


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        ("m.onnx", True),
        ("models/m.onnx", True),
        ("./m.onnx", True),
        ("inner.onnx", True),
        ("../m.onnx", False),
        ("models/../m.onnx", False),
        ("/etc/hostname", False),
        ("out.onnx", False),
        ("away/m.onnx", False),
        ("loop", False),
        (".", False),
        ("''", False),
        ("a" * 5000, True),
    ],
)
def test_paths_must_stay_in_the_folder_of_the_file(tmp_path: Path, written: str, inside: bool) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "m.onnx").touch()
    (folder / "inner.onnx").symlink_to(folder / "m.onnx")
    (tmp_path / "secret.onnx").touch()
    (folder / "out.onnx").symlink_to(tmp_path / "secret.onnx")
    (folder / "away").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "graph.yaml").write_text(edited(GRAPH, ("accuracy: 1,", f"accuracy: 1, artifacts: {{m: {written}}},")))
    (file,) = load_graph(folder).files.values()
    assert file.inside == inside or (len(written) > 255 and not file.exists)
    if inside and len(written) < 255:
        assert file.exists == (written != "models/m.onnx")


def test_a_cluster_is_read(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    loaded = load_cluster(tmp_path)
    assert loaded.problems == ()
    assert [node.name for node in loaded.document.spec.nodes] == ["b", "a"]
    assert loaded.document.spec.driver is None


@pytest.mark.parametrize(
    ("edit", "place", "words"),
    [
        (("engine: local", "engine: agent"), "engine", "spec.engine is 'agent'; did you mean 'agents'?"),
        (
            ("engine: local", "server: {image: --privileged}"),
            "server",
            "image is '--privileged', not a container image; write",
        ),
        (("engine: local", "processes: mbs"), "processes", "spec.processes is 'mbs'; did you mean 'mps'?"),
        (("engine: local", "driver: cuda"), "driver", "spec.driver is 'cuda'; known values: emulated, nvml"),
        (
            ("[{model: A100-80GB, count: 2}]", "4xA100"),
            "4xA100",
            "must be a list, not '4xA100'; write, for example, gpus: [{",
        ),
        (("http: 9000", "http: 70000"), "gateway", "spec.gateway.http is 70000; it must be at most 65535"),
        (("[{model: A100-80GB, count: 2}]", "[{model: A100-80GB, count: 0}]"), "count: 0", "it must be at least 1"),
        (("- name: b", "- nmae: b"), "- nmae", "unknown key 'nmae' in spec.nodes[0]; did you mean 'name'?"),
        (("kind: Cluster", "kind: TaskGraph"), "kind", "kind is 'TaskGraph'; it must be Cluster"),
        # graph.yaml may have the keys of the next two cases, but cluster.yaml may not.
        (("kind: Cluster", "kind: Cluster\nmetadata: {name: c}"), "metadata", "unknown key 'metadata' in the document"),
        (("spec:\n", "spec:\n  inputs: {}\n"), "inputs: {}", "unknown key 'inputs' in spec"),
    ],
)
def test_mistakes_in_a_cluster_are_reported_with_their_lines(
    tmp_path: Path, edit: tuple[str, str], place: str, words: str
) -> None:
    text = edited(CLUSTER, edit)
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    try:
        found = load_cluster(file).problems
    except SpecError as error:
        found = error.diagnostics
    assert any(str(p).startswith(f"{file}:{line_of(text, place)}: ") and words in str(p) for p in found), found


def test_gpus_of_the_command_line_make_a_cluster_of_one_node() -> None:
    (node,) = parse_gpus("4xA100-80GB, H100-80GB,2Xcpu").document.spec.nodes
    assert node.name == LOCAL_NODE
    assert [(entry.count, entry.model) for entry in node.gpus] == [(4, "A100-80GB"), (1, "H100-80GB"), (2, "cpu")]


@pytest.mark.parametrize("text", ["", "4x", "0xA100-80GB", "A100 x4", "4xA100-80GB,", "-1xcpu", "99999xcpu", "4x../x"])
def test_malformed_gpus_are_refused(text: str) -> None:
    with pytest.raises(
        SpecError, match=r"--gpus: '.*' does not name a number of GPUs; write COUNTxMODEL, with COUNT from 1 to 16384"
    ):
        parse_gpus(text)
