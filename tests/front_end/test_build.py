import json
import os
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from console import build as module
from console.build import SOURCES, build, digest, install
from console.node import REQUIREMENTS, BuildError, _pips, provide_node
from tests.build_hook import hook, wheel_data

NODE = """#!/bin/sh
case "$1" in
--version) echo v{version} ;;
*) echo "node $*" >> "{calls}"; test ! -e "{calls}.broken" || {{ echo "app.tsx:3: wrong" >&2; exit 1; }}
   mkdir -p "$2" && echo page > "$2/index.html" && echo script > "$2/app.js" ;;
esac
"""
NPM = """#!/bin/sh
echo "npm $*" >> "{calls}"
test ! -e "{calls}.offline" || {{ echo "npm error code ENOTFOUND" >&2; exit 1; }}
mkdir -p node_modules
"""


class Tools:
    """Programs `node` and `npm` that write their calls into a file.

    Args:
        folder: Folder for the programs, which PATH names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._calls = folder, folder / "calls"
        self.write("node", NODE.format(calls=self._calls, version="20.1.0"))
        self.write("npm", NPM.format(calls=self._calls))

    def write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)
        (self._folder / name).chmod(0o755)

    def old(self) -> None:
        self.write("node", NODE.format(calls=self._calls, version="12.22.9"))

    def offline(self) -> None:
        (self._folder / "calls.offline").touch()

    def broken(self) -> None:
        (self._folder / "calls.broken").touch()

    def calls(self) -> list[str]:
        return [line.split()[0] for line in self._calls.read_text().splitlines()] if self._calls.exists() else []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv(module.MODE_VARIABLE, raising=False)
    return Tools(folder)


PIP = """#!/bin/sh
echo "$*" >> "{folder}/pip.calls"
test -e "{folder}/index" || {{ echo "ERROR: No matching distribution found" >&2; exit 1; }}
while test "$1" != --target; do shift; done
mkdir -p "$2/nodejs_of_the_test/bin" "$2/nodejs_of_the_test/lib/node_modules/npm/bin"
touch "$2/nodejs_of_the_test/bin/node" "$2/nodejs_of_the_test/lib/node_modules/npm/bin/npm-cli.js"
"""


@pytest.fixture
def no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Node.js, whose pip finds it in an index if the folder that is returned has a file `index`."""
    which = shutil.which
    monkeypatch.setattr("console.node.shutil.which", lambda name: None if name in ("node", "npm") else which(name))
    monkeypatch.setattr("console.node._PACKAGE", "nodejs_of_the_test")
    monkeypatch.delenv(module.MODE_VARIABLE, raising=False)
    pip = tmp_path / "pip"
    pip.write_text(PIP.format(folder=tmp_path))
    pip.chmod(0o755)
    monkeypatch.setattr("console.node._pips", lambda: iter([[str(pip)]]))
    return tmp_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with sources of a console."""
    sources = tmp_path / "checkout" / "console"
    (sources / "src").mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "build.mjs", "tsconfig.json", "src/main.tsx"):
        (sources / name).write_text(name)
    return sources.parent


def assets(root: Path, *, develop: bool = False) -> Path:
    return build(sources=root / "console", folder=root / "build", develop=develop)


def test_assets_are_built_once(root: Path, tools: Tools) -> None:
    found = assets(root)
    assert {path.name for path in found.iterdir()} == {"index.html", "app.js"}
    assert tools.calls() == ["npm", "node"]
    assert assets(root) == found
    assert tools.calls() == ["npm", "node"]


def test_changed_sources_are_built_again_with_the_same_packages(root: Path, tools: Tools) -> None:
    assets(root)
    (root / "console" / "src" / "main.tsx").write_text("changed")
    assets(root)
    assert tools.calls() == ["npm", "node", "node"]


def test_a_changed_lockfile_installs_its_packages(root: Path, tools: Tools) -> None:
    assets(root)
    (root / "console" / "package-lock.json").write_text("changed")
    assets(root)
    assert tools.calls() == ["npm", "node", "npm", "node"]


def test_the_packages_of_developers_are_added(root: Path, tools: Tools) -> None:
    assets(root)
    assets(root, develop=True)
    assets(root, develop=True)
    assets(root)
    assert tools.calls() == ["npm", "node", "npm"]


def test_no_node_is_looked_for_while_assets_and_packages_are_up_to_date(
    root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = assets(root, develop=True)

    def missing(folder: Path) -> None:
        raise BuildError("no Node.js is installed")

    monkeypatch.setattr(module, "provide_node", missing)
    assert assets(root, develop=True) == found
    (root / "console" / "src" / "main.tsx").write_text("changed")
    with pytest.raises(BuildError, match="no Node"):
        assets(root, develop=True)


def test_no_registry_is_an_error_that_says_so(root: Path, tools: Tools) -> None:
    tools.offline()
    with pytest.raises(BuildError, match=r"(?s)downloaded from the npm registry once.*ENOTFOUND"):
        assets(root)


def test_a_mistake_in_the_sources_is_an_error_and_keeps_the_old_assets(root: Path, tools: Tools) -> None:
    found = assets(root)
    (root / "console" / "src" / "main.tsx").write_text("wrong")
    tools.broken()
    with pytest.raises(BuildError, match=r"(?s)cannot be built.*app.tsx:3: wrong"):
        assets(root)
    assert (found / "index.html").is_file()


def test_assets_of_a_build_that_was_interrupted_are_built_again(
    root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets(root)
    before = (root / "console" / "src" / "main.tsx").read_text()
    (root / "console" / "src" / "main.tsx").write_text("changed")

    def interrupt(path: Path, **_: object) -> None:
        (path / "app.js").unlink(missing_ok=True)
        if path.name == "assets":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("console.build.shutil.rmtree", interrupt)
        assets(root)
    (root / "console" / "src" / "main.tsx").write_text(before)
    assert (assets(root) / "app.js").is_file()


def test_packages_of_an_installation_that_failed_are_installed_again(root: Path, tools: Tools) -> None:
    assets(root)
    tools.offline()
    with pytest.raises(BuildError):
        assets(root, develop=True)
    (root / "console" / "src" / "main.tsx").write_text("changed")
    with pytest.raises(BuildError):
        assets(root)


def test_a_missing_node_is_downloaded_once(no_node: Path, tmp_path: Path) -> None:
    (no_node / "index").touch()
    for _ in range(2):
        node = provide_node(tmp_path / "node")
        assert node.program == tmp_path / "node" / "nodejs_of_the_test" / "bin" / "node"
    (call,) = (no_node / "pip.calls").read_text().splitlines()
    assert call.endswith(f"--target {tmp_path / 'node'} --requirement {REQUIREMENTS}")


def test_a_node_that_cannot_be_downloaded_is_an_error(no_node: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"(?s)no Node.js is installed.*No matching distribution.*apt-get install nodejs"
    ):
        provide_node(tmp_path / "node")


def test_a_pip_that_installs_for_the_user_does_not_hinder_the_download(
    no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.node._pips", _pips)
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BuildError, match="No matching distribution"):
        provide_node(tmp_path / "node")


def test_a_download_that_differs_from_the_known_one_is_refused(
    no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (requirement,) = (line.split()[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    stem = requirement.replace("-", "_").replace("==", "-")
    with zipfile.ZipFile(tmp_path / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr("nodejs_of_the_test/bin/node", "")
        archive.writestr("nodejs_of_the_test/lib/node_modules/npm/bin/npm-cli.js", "")
        name, version = requirement.split("==")
        archive.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    monkeypatch.setattr("console.node._pips", _pips)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BuildError, match="DO NOT MATCH THE HASHES"):
        provide_node(tmp_path / "node")


def test_an_old_node_is_not_used(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provide_node(tmp_path / "node").program == tmp_path / "programs" / "node"
    tools.old()
    monkeypatch.setattr("console.node._packaged", lambda _: None)
    monkeypatch.setattr("console.node._pips", lambda: iter([]))
    with pytest.raises(BuildError, match=r"node is too old.*This Python has no pip"):
        provide_node(tmp_path / "node")


@pytest.mark.slow
def test_pip_is_found_in_an_environment_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_spec

    def without_pip(name: str) -> object:
        return None if name == "pip" else known(name)

    monkeypatch.setattr("console.node.importlib.util.find_spec", without_pip)
    for pip in _pips():
        ran = subprocess.run([*pip, "--version"], capture_output=True, text=True, check=True)
        assert ran.stdout.startswith("pip ")


def test_installed_assets_are_those_that_were_built(tmp_path: Path) -> None:
    built, place = tmp_path / "built", tmp_path / "place"
    built.mkdir()
    place.mkdir()
    (built / "app.js").write_text("new")
    (place / "app.js").write_text("old")
    (place / "gone.js").write_text("old")
    assert install(built, place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {"app.js": "new"}
    assert not install(built, place)


def included(root: Path, monkeypatch: pytest.MonkeyPatch, version: str = "standard") -> list[str]:
    monkeypatch.setattr("native.build.build_backend", lambda **_: ())
    return sorted(wheel_data(root, version)["force_include"].values())


def test_a_wheel_contains_the_console(root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "jigsaw_triton/console/assets"
    assert included(root, monkeypatch) == [f"{folder}/app.js", f"{folder}/index.html"]
    assert not (root / folder).exists()


def test_an_editable_install_has_the_console_in_the_checkout(
    root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert included(root, monkeypatch, "editable") == []
    assert (root / module.PLACE / "index.html").is_file()


def test_an_installation_without_the_registry_has_no_console_and_says_so(
    root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.offline()
    assert included(root, monkeypatch) == []
    said = capsys.readouterr()
    assert "This installation has no web console" in said.out + said.err


def test_an_installation_without_node_has_no_console_and_says_how_to_get_it(
    root: Path, no_node: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any("node" in requirement for requirement in hook(root).dependencies())
    assert included(root, monkeypatch) == []
    said = capsys.readouterr()
    assert "install Node.js" in said.out + said.err
    assert "This installation has no web console; all else works" in said.out + said.err


def test_a_release_without_the_registry_fails(root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.offline()
    monkeypatch.setenv(module.MODE_VARIABLE, "require")
    with pytest.raises(BuildError, match="npm registry"):
        included(root, monkeypatch)


def test_an_installation_may_skip_the_console(root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.MODE_VARIABLE, "skip")
    assert included(root, monkeypatch) == []
    assert tools.calls() == []


def test_the_digest_covers_every_source(root: Path) -> None:
    before = digest(root / "console")
    (root / "console" / "src" / "new.css").write_text("")
    assert digest(root / "console") != before
    (root / "console" / "src" / "new.css").unlink()
    assert digest(root / "console") == before


def test_the_lockfile_has_exactly_the_packages_of_package_json() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    locked = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    for kind in ("dependencies", "devDependencies"):
        for name, version in package[kind].items():
            assert locked[f"node_modules/{name}"]["version"] == version
    assert all(entry.get("integrity") for name, entry in locked.items() if name)


def test_the_sources_never_write_html() -> None:
    texts = {path: path.read_text() for path in (SOURCES / "src").rglob("*.ts*")}
    assert len(texts) > 15
    wrong = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    assert [path.name for path, text in texts.items() if any(word in text for word in wrong)] == []


@pytest.mark.skipif(not (module.ROOT / module.PLACE).is_dir(), reason="the console is not built")
def test_the_built_assets_have_the_licences_of_the_bundle() -> None:
    text = (module.ROOT / module.PLACE / "licences.txt").read_text()
    assert all(f"\n{name} " in text for name in ("@dagrejs/dagre", "@preact/signals", "preact", "uplot"))
    assert "\nesbuild " not in text
