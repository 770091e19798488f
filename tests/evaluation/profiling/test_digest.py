from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.digest import DIGITS, model_digest
from jigsaw_triton.graph.model import Variant


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    file = tmp_path / "model.py"
    file.write_text("one")
    return Variant("v", 1.0, "python", artifacts={"model.py": file}, parameters={"size": "3"})


def digest(variant: Variant) -> str:
    return model_digest(variant, Identities())


def test_a_digest_is_the_same_for_the_same_model(variant: Variant, tmp_path: Path) -> None:
    copy = tmp_path / "copy.py"
    copy.write_text("one")
    assert len(digest(variant)) == DIGITS
    assert digest(replace(variant, name="w", accuracy=2.0, artifacts={"model.py": copy})) == digest(variant)


def test_files_parameters_and_template_change_the_digest(variant: Variant, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("two")
    changed = [
        replace(variant, artifacts={"model.py": other}),
        replace(variant, artifacts={"model.txt": variant.artifacts["model.py"]}),
        replace(variant, parameters={"size": "4"}),
        replace(variant, template="torch"),
    ]
    assert len({digest(one) for one in (variant, *changed)}) == 5


def test_a_variant_without_files_has_no_digest(variant: Variant) -> None:
    assert digest(replace(variant, artifacts={})) == ""


def test_a_missing_file_is_an_error(variant: Variant) -> None:
    variant.artifacts["model.py"].unlink()
    with pytest.raises(InputError, match="cannot be read"):
        digest(variant)
