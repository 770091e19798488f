import json
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.models.transformers_folder import example, model_files, pipeline_of, read_transformers, varies


def written(folder: Path, *files: str, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    for name in files:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json: this is not JSON"),
        ("[]", "this is not the configuration of a Hugging Face model; save the model with model.save_pretrained"),
        ('{"a": 1}', "this is not the configuration of a Hugging Face model"),
        ("[" * 100_000, "this is not JSON"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_transformers(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("DistilBertForSequenceClassification", "text-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_the_class_of_a_model_tells_its_pipeline(tmp_path: Path, name: str, pipeline: str) -> None:
    assert pipeline_of(written(tmp_path, architectures=[name])) == pipeline


@pytest.mark.parametrize("config", [{"architectures": ["T5ForConditionalGeneration"]}, {}, {"architectures": 5}])
def test_a_class_of_several_pipelines_needs_the_name(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not known; name it with --parameter pipeline=NAME"):
        pipeline_of(written(tmp_path, **config))


def test_files_that_the_model_does_not_need_stay_behind(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    needed = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
    extra = ["README.md", ".gitattributes", "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"]
    assert list(model_files(written(tmp_path, *needed[1:], *extra))) == needed


def test_older_weights_are_taken_if_there_are_no_others(tmp_path: Path) -> None:
    parts = ["pytorch_model-1.bin", "pytorch_model-2.bin", "pytorch_model.bin.index.json"]
    assert list(model_files(written(tmp_path, *parts, "training_args.bin"))) == ["config.json", *parts]


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder has no weights \(model\.safetensors or pytorch_model\.bin\)"):
        model_files(written(tmp_path))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="this is a pointer of Git LFS, not weights; run git lfs pull"):
        model_files(tmp_path)


def test_pipelines_of_texts_have_an_example() -> None:
    assert example("text-classification")["TEXT"].shape == ()
    assert example("image-classification") == {}
    assert varies("token-classification")
    assert not varies("text-classification")
