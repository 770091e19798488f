"""Build hook of hatchling: compiles the backend for wheels and for editable installs."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# A build starts in an environment that has the build system alone, so the checkout is on no path yet.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from native import build, compiler


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled backend to a wheel, or puts it into the checkout that is installed as editable."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Requirement of a compiler, if there is none."""
        return compiler.missing_requirements()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the backend.

        Args:
            version: `editable` for an editable install, else `standard`.
            build_data: Description of the wheel, which is changed here.
        """
        root = Path(self.root)
        chosen = compiler.find_compiler()
        editable = version == "editable"
        # A warning of a compiler that nobody has tried yet must not keep users from installing a release.
        library = build.build_backend(
            sources=root / "native", folder=root / "build" / "native", compiler=chosen, strict=editable
        )
        if editable:
            build.install(library, root / build.PLACE)
        else:
            build_data["force_include"][str(library)] = build.PLACE.as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{chosen.platform_tag}"
