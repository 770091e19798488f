import stat
from pathlib import Path

import pytest

from jigsaw_triton.servers.haproxy.program import find_haproxy, find_installed, missing, version

OUTPUT = """\
HAProxy version 3.0.11-1+deb13u3 2026/01/01 - https://haproxy.org/
Feature list : -51DEGREES +ACCEPT4 +LUA +OPENSSL +PROMEX -QUIC
"""


def test_missing_features_are_listed() -> None:
    assert version(OUTPUT) == "3.0.11"
    assert missing(OUTPUT) == ()
    assert missing(OUTPUT.replace("+LUA", "-LUA").replace("3.0.11", "2.6.12")) == ("version 2.8", "LUA")
    assert missing("nonsense") == ("version 2.8", "OPENSSL", "LUA", "PROMEX")


@pytest.mark.parametrize(("output", "found"), [(OUTPUT, True), (OUTPUT.replace("+LUA", "-LUA"), False)])
def test_a_haproxy_on_path_is_used_if_it_has_all_features(
    output: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "haproxy"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{output}E\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    installed = find_installed()
    assert (installed is not None) == found
    if installed is not None:
        assert (installed.binary, installed.version, installed.origin) == (program, "3.0.11", "path")


def test_the_packaged_haproxy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_haproxy().origin == "package"
