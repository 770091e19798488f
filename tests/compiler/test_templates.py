from pathlib import Path

import pytest

from jigsaw_triton.compiler.templates import Template, load_templates, template
from jigsaw_triton.errors import InputError


def test_templates_are_loaded_from_a_folder(tmp_path: Path) -> None:
    for name in ("torch", "ensemble", ".git", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("not a template")
    (tmp_path / "ensemble" / "config.pbtxt").write_text('platform: "ensemble"')
    (tmp_path / "torch" / "config.pbtxt").write_text('backend: "python"')
    (tmp_path / "torch" / "config.native.pbtxt").write_text('backend: "pytorch"')
    (tmp_path / "torch" / "model.py").write_bytes(b"code")

    assert load_templates(tmp_path) == {
        "ensemble": Template("ensemble", 'platform: "ensemble"'),
        "torch": Template("torch", 'backend: "python"', 'backend: "pytorch"', b"code"),
    }


def test_the_error_names_a_template_without_a_config(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"cannot be read .*mine/config\.pbtxt"):
        load_templates(tmp_path)


def test_the_error_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: the templates cannot be read"):
        load_templates(tmp_path / "nowhere")


def test_the_error_of_an_unknown_template_lists_the_known_ones() -> None:
    known = {name: Template(name, "") for name in ("torch", "python")}
    assert template(known, "torch", where="a.b.c") is known["torch"]
    with pytest.raises(InputError, match=r"a\.b\.c: there is no template 'tourch'; known templates: python, torch"):
        template(known, "tourch", where="a.b.c")
