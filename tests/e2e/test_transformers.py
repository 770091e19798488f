"""A Hugging Face model in a deployment: a tiny one that is made here, without a network."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System
from tests.fakes.transformers_models import save_bert

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(find_spec("transformers") is None, reason="the extra `transformers` is not installed"),
]

LABELS = {0: "negative", 1: "positive", 2: "neutral"}
TEXTS = ("the film was good", "bad", "the film is a film is a film")


def write(folder: Path) -> Path:
    """Writes an application that classifies texts."""
    folder.mkdir(parents=True)
    save_bert(folder / "models", "BertForSequenceClassification", id2label=LABELS)
    files = {path.name: f"models/{path.name}" for path in (folder / "models").iterdir()}
    variant = {
        "name": "tiny",
        "accuracy": 1.0,
        "template": "transformers",
        "artifacts": files,
        "parameters": {"pipeline": "text-classification"},
    }
    text, label, score = ({"dtype": dtype, "shape": [1]} for dtype in ("BYTES", "BYTES", "FP32"))
    task = {"inputs": {"TEXT": "inputs.TEXT"}, "outputs": {"LABEL": label, "SCORE": score}, "variants": [variant]}
    spec = {
        "slo": {"latency_ms": 5_000},
        "inputs": {"TEXT": text},
        "outputs": {"LABEL": "classify.LABEL", "SCORE": "classify.SCORE"},
        "tasks": {"classify": task},
    }
    document = {"apiVersion": "jigsaw-triton/v1", "kind": "TaskGraph", "metadata": {"name": "mood"}, "spec": spec}
    (folder / "graph.yaml").write_text(json.dumps(document))
    keys = [ProfileKey("cpu", "classify", "tiny", "1g", 1, batch) for batch in (1, 4)]
    rows = [ProfileRow(key, 20.0, 20.0, 20.0, 50.0 * key.batch, 400, "assumed") for key in keys]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> tuple[System, Path]:
    folder = write(tmp_path_factory.mktemp("apps") / "mood")
    shared.deploy(folder, "--gpus", "1xcpu", "--demand", "mood=10")
    return shared, folder / "models"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_are_classified_as_by_the_model_itself(served: tuple[System, Path], protocol: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    system, folder = served
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with Client(system, protocol) as client:
        given = np.array([[text.encode()] for text in TEXTS], np.object_)
        answer = client.ask("mood", {"TEXT": given}, ("LABEL", "SCORE"))
    for text, label, score in zip(TEXTS, answer["LABEL"].ravel(), answer["SCORE"].ravel(), strict=True):
        with torch.inference_mode():
            scores = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].numpy()
        assert label.decode() == LABELS[int(scores.argmax())]
        assert score == pytest.approx(scores.max(), rel=1e-4)
