import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.compiler import BuildError, Compiler, find_compiler

FILES = {
    "core/sum.h": "#pragma once\nint Sum(int a, int b);\n",
    "core/sum.cc": '#include "core/sum.h"\nint Sum(int a, int b) { return a + b; }\n',
    "core/other.cc": "int Other() { return 1; }\n",
    "onnx/model.cc": "int Model() { return 1; }\n",
    "triton/backend.cc": """
#include "core/sum.h"
extern "C" __attribute__((weak)) int TRITONSERVER_LogLevel(int level);
extern "C" int TRITONBACKEND_Initialize(int n) { return TRITONSERVER_LogLevel(Sum(n, 1)); }
extern "C" const char* jigsaw_build_info() {
  return "{\\"version\\": \\"" JIGSAW_VERSION "\\", \\"compiler\\": \\"" JIGSAW_COMPILER "\\", \\"api\\": \\"1.19\\"}";
}
""",
    "preload/private.cc": 'extern "C" int fchmod(int, unsigned) { return 0; }\n',
    "testing/api.cc": """
#include "core/sum.h"
extern "C" int TRITONSERVER_LogLevel(int level) { return level; }
extern "C" int testing_sum(int a, int b) { return Sum(a, b); }
""",
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXX", "CXXFLAGS", "LDFLAGS", "JIGSAW_COMPILER", "JIGSAW_SANITIZER"):
        monkeypatch.delenv(name, raising=False)
    # tests/front_end tests the console's part of the build hook.
    monkeypatch.setenv("JIGSAW_CONSOLE", "skip")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return write_sources(tmp_path / "sources")


def write_sources(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """The installed g++ or clang++; zig is skipped because its first build takes minutes."""
    try:
        found = find_compiler("auto")
    except BuildError as error:
        pytest.skip(str(error))
    if found.kind == "zig":
        pytest.skip("neither g++ nor clang++ is installed")
    return found


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Empty folder that is the only one on PATH; zig is not installed."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("native.compiler._zig", lambda: None)
    yield folder


def write_compiler(path: Path, *, level: int = 202002, gnu: str = "13 2 1", clang: str = "a b c") -> Path:
    """Writes a program that prints what the preprocessor of a compiler prints."""
    path.write_text(f"#!/bin/sh\necho 'compiler {level}L {gnu} {clang}'\n")
    path.chmod(0o755)
    assert os.access(path, os.X_OK)
    return path
