"""The examples in the docstrings of the library, and the tutorial."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import jigsaw_triton
from jigsaw_triton.api import deployment, programs
from jigsaw_triton.api.rollout import Rollout
from tests.fakes.documents import line_of

ROOT = Path(jigsaw_triton.__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "jigsaw_triton" / "api").glob("*.py") if path.stem != "__init__")


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = (import_module(f"jigsaw_triton.api.{name}") for name in MODULES)
    found = [test for module in modules for test in finder.find(module, globs={}) if test.examples]
    return sorted(found, key=lambda test: test.name)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name.removeprefix("jigsaw_triton.api."))
def test_the_example_of_a_docstring_works(test: doctest.DocTest, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app.parent)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.failed == 0
    assert result.attempted > 0


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and text of each Python block of a page."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


@pytest.mark.slow
def test_the_tutorial_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs the blocks of the tutorial in one namespace. Deployments are planned, but no server is started."""
    status = {"gateway": {"http": "127.0.0.1:8000"}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIGSAW_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "ensure_programs", lambda *_: None)
    monkeypatch.setattr(deployment.Deployment, "roll_out", _remember)
    monkeypatch.setattr(deployment.Deployment, "status", lambda _: status)
    page = ROOT / "docs" / "tutorial" / "library.md"
    namespace: dict[str, object] = {}
    for line, block in blocks(page):
        exec(compile("\n" * line + block, str(page), "exec"), namespace)
    graph = namespace["graph"]
    assert isinstance(graph, jigsaw_triton.TaskGraph)
    assert (tmp_path / "plan.svg").read_text().startswith("<svg ")
    printed = capsys.readouterr().out
    wrong = line_of(page.read_text(), 'template="emulate")')
    assert f"library.md:{wrong}: there is no template 'emulate'; did you mean 'emulated'?" in printed
    assert "slices for" in printed
    assert "127.0.0.1:8000" in printed


def _remember(self: deployment.Deployment, rollout: Rollout, **_: object) -> None:
    self._request = rollout.request
