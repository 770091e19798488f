import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.runners import Runner, load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec
from tests.fakes.transformers_models import save_bert, save_gpt, save_vit

# Importing transformers takes too long for every run that collects this file.
pytestmark = [
    pytest.mark.skipif(find_spec("transformers") is None, reason="the extra `transformers` is not installed"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TEXT = TensorSpec("TEXT", "BYTES", ())
LABEL, SCORE = TensorSpec("LABEL", "BYTES", ()), TensorSpec("score", "FP32", ())


def texts(*lines: str) -> Array:
    return np.array([line.encode() for line in lines], np.object_)


def runner(folder: Path, outputs: tuple[TensorSpec, ...], pipeline: str, **parameters: str) -> Runner:
    stack = all(dim > 0 for output in outputs for dim in output.shape)
    spec = RunnerSpec("transformers", (TEXT,), outputs, stack=stack, parameters={"pipeline": pipeline, **parameters})
    return load_runner(folder, spec)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {0: "negative", 1: "positive", 2: "neutral"}
    return save_bert(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification", id2label=labels)


def expected(folder: Path, text: str) -> Any:
    """Returns what the model says of a text, without the pipeline."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        return model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits.softmax(-1)[0].numpy()


def test_a_text_is_classified_as_the_model_does(classifier: Path) -> None:
    loaded = runner(classifier, (LABEL, SCORE), "text-classification")
    lines = ["the film was good", "bad", "the film is a film is a film"]
    (answer,) = loaded.answer([{"TEXT": texts(*lines)}])
    assert not isinstance(answer, Failure)
    for line, label, score in zip(lines, answer["LABEL"], answer["score"], strict=True):
        scores = expected(classifier, line)
        assert label.decode() == ["negative", "positive", "neutral"][scores.argmax()]
        assert score == pytest.approx(scores.max(), rel=1e-4)


def test_requests_of_a_batch_get_their_own_answers(classifier: Path) -> None:
    loaded = runner(classifier, (LABEL, SCORE), "text-classification")
    first, second = loaded.answer([{"TEXT": texts("good")}, {"TEXT": texts("bad bad bad", "the film")}])
    assert not isinstance(first, Failure) and not isinstance(second, Failure)
    assert (first["LABEL"].shape, second["LABEL"].shape) == ((1,), (2,))
    for line, score in [("good", first["score"][0]), ("the film", second["score"][1])]:
        assert score == pytest.approx(expected(classifier, line).max(), rel=1e-4)


def test_several_results_are_a_dimension(classifier: Path) -> None:
    outputs = (TensorSpec("label", "BYTES", (2,)), TensorSpec("score", "FP32", (2,)))
    (answer,) = runner(classifier, outputs, "text-classification", top_k="2").answer([{"TEXT": texts("good", "bad")}])
    assert not isinstance(answer, Failure)
    assert answer["score"].shape == (2, 2)
    assert answer["score"][1].tolist() == pytest.approx(sorted(expected(classifier, "bad"))[:0:-1], rel=1e-4)


def test_features_are_one_array_of_varying_length(tmp_path: Path) -> None:
    loaded = runner(save_bert(tmp_path, "BertModel"), (TensorSpec("FEATURES", "FP32", (-1, 16)),), "feature-extraction")
    long, short = loaded.answer([{"TEXT": texts("the film was good")}, {"TEXT": texts("bad")}])
    assert not isinstance(long, Failure) and not isinstance(short, Failure)
    # [CLS] and [SEP] are tokens too.
    assert (long["FEATURES"].shape, short["FEATURES"].shape) == ((1, 6, 16), (1, 3, 16))


def test_tokens_without_a_class_are_no_rows(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, "BertForTokenClassification", id2label={0: "O", 1: "NAME"})
    outputs = (TensorSpec("entity", "BYTES", (-1,)), TensorSpec("index", "INT64", (-1,)))
    loaded = runner(folder, outputs, "token-classification", ignore_labels='["O", "NAME"]')
    (answer,) = loaded.answer([{"TEXT": texts("the film")}])
    assert not isinstance(answer, Failure)
    assert (answer["entity"].shape, answer["index"].shape) == ((1, 0), (1, 0))
    (answer,) = runner(folder, outputs, "token-classification", ignore_labels="[]").answer([{"TEXT": texts("a film")}])
    assert not isinstance(answer, Failure)
    assert answer["index"].tolist() == [[1, 2]]


def test_texts_are_continued_in_batches_without_a_token_for_padding(tmp_path: Path) -> None:
    outputs = (TensorSpec("generated_text", "BYTES", ()),)
    loaded = runner(save_gpt(tmp_path), outputs, "text-generation", max_new_tokens="3", do_sample="false")
    lines = ["the film", "good film is a bad film"]
    (both,) = loaded.answer([{"TEXT": texts(*lines)}])
    assert not isinstance(both, Failure)
    for line, made in zip(lines, both["generated_text"], strict=True):
        assert made.decode().startswith(line)
        assert len(made.decode()) > len(line)


def test_labels_are_a_parameter(tmp_path: Path) -> None:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    folder = save_bert(tmp_path, "BertForSequenceClassification", id2label=labels)
    outputs = (TensorSpec("labels", "BYTES", (2,)), TensorSpec("scores", "FP32", (2,)))
    loaded = runner(folder, outputs, "zero-shot-classification", candidate_labels='["good", "bad"]')
    (answer,) = loaded.answer([{"TEXT": texts("the film", "a film")}])
    assert not isinstance(answer, Failure)
    assert [sorted(row) for row in answer["labels"].tolist()] == [[b"bad", b"good"]] * 2
    assert answer["scores"].sum(axis=1) == pytest.approx(1)


def test_a_masked_word_is_filled(tmp_path: Path) -> None:
    outputs = (TensorSpec("token_str", "BYTES", (3,)), TensorSpec("sequence", "BYTES", (3,)))
    loaded = runner(save_bert(tmp_path, "BertForMaskedLM"), outputs, "fill-mask", top_k="3")
    good, bad = loaded.answer([{"TEXT": texts("the [MASK] was good")}, {"TEXT": texts("no such word")}])
    assert not isinstance(good, Failure)
    assert good["token_str"].shape == (1, 3)
    assert isinstance(bad, Failure) and "mask" in bad.message.lower()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((TensorSpec("LABELS", "BYTES", ()),), "the pipeline returned no output LABELS; it returned label, score"),
        ((TensorSpec("score", "INT64", ()),), "Cannot cast"),
        ((TensorSpec("score", "FP32", (3,)),), r"output score has shape \[1, 1\] where \[1, 3\] was declared"),
    ],
)
def test_outputs_that_the_pipeline_does_not_have_are_an_error(
    classifier: Path, outputs: tuple[TensorSpec, ...], message: str
) -> None:
    (answer,) = runner(classifier, outputs, "text-classification").answer([{"TEXT": texts("good")}])
    assert isinstance(answer, Failure)
    assert answer.blame == "model"
    assert re.search(message, answer.message)


def test_all_outputs_are_returned_if_none_is_declared(classifier: Path) -> None:
    made = runner(classifier, (), "text-classification").run({"TEXT": texts("good")})
    assert {name: (array.dtype.kind, array.shape) for name, array in made.items()} == {
        "label": ("O", (1,)),
        "score": ("f", (1,)),
    }


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "_name_or_path": "bert-base-uncased"}')
    with pytest.raises(ValueError, match="Could not load model"):
        runner(tmp_path, (LABEL,), "text-classification")


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    save_bert(tmp_path, "BertForSequenceClassification")
    config = (tmp_path / "config.json").read_text()
    remote = '{"auto_map": {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"},'
    (tmp_path / "config.json").write_text(config.replace("{", remote, 1).replace('"bert"', '"own"'))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises((ValueError, OSError, KeyError)):
        runner(tmp_path, (LABEL,), "text-classification")
    assert not (tmp_path / "ran").exists()


def test_an_image_is_classified_and_no_text_is_opened_as_a_file(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder = save_vit(tmp_path)
    parameters = {"pipeline": "image-classification", "top_k": "1"}
    image = TensorSpec("IMAGE", "UINT8", (-1, -1, 3))
    loaded = load_runner(folder, RunnerSpec("transformers", (image,), (LABEL,), parameters=parameters))
    (answer,) = loaded.answer([{"IMAGE": np.zeros((1, 20, 30, 3), np.uint8)}])
    assert not isinstance(answer, Failure)
    assert answer["LABEL"][0].decode().startswith("LABEL_")
    for path in (TensorSpec("IMAGE", "BYTES", ()), TensorSpec("IMAGE", "BYTES", (2,))):
        with pytest.raises(RuntimeError, match="IMAGE is a text, which image-classification would open as a file"):
            load_runner(folder, RunnerSpec("transformers", (path,), (LABEL,), parameters=parameters))


def test_nothing_found_is_no_rows_of_each_output() -> None:
    from jigsaw_triton.runtime.runners import transformers

    spec = RunnerSpec("transformers", (TEXT,), ())
    found = {"label": "cat", "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}
    for results in ([], [found], [found, found]):
        boxes = transformers._tensor(results, TensorSpec("box", "FP32", (-1, 4)), spec)
        labels = transformers._tensor(results, TensorSpec("label", "BYTES", (-1,)), spec)
        assert (boxes.shape, labels.shape) == ((len(results), 4), (len(results),))


def test_the_name_of_the_pipeline_is_required(classifier: Path) -> None:
    with pytest.raises(RuntimeError, match="the parameter pipeline is missing; write parameters"):
        load_runner(classifier, RunnerSpec("transformers", (TEXT,), (LABEL,)))


@pytest.mark.parametrize(
    ("name", "advice"),
    [("text-clasification", "did you mean text-classification?"), ("xyz", "there are ")],
)
def test_an_unknown_pipeline_is_named_with_those_that_there_are(classifier: Path, name: str, advice: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(f"there is no pipeline '{name}'; {advice}")):
        runner(classifier, (LABEL, SCORE), name)
