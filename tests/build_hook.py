"""The hook that compiles the backend and bundles the web console when a wheel is built."""

from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from hatch_build import NativeBuildHook


def hook(root: Path) -> NativeBuildHook:
    manager = PluginManager()
    metadata = ProjectMetadata(str(root), manager, {"project": {"name": "x", "version": "1"}})
    config: BuilderConfig = None  # type: ignore[assignment]
    return NativeBuildHook(str(root), {}, config, metadata, str(root / "dist"), "wheel")


def wheel_data(root: Path, version: str) -> dict[str, Any]:
    """Runs the hook for a wheel of this version, and returns what it adds to the wheel."""
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "tag": None}
    hook(root).initialize(version, data)
    return data
