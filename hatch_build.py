"""Build hook for hatchling: compiles the Triton backend for wheels and for editable installations."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# pip runs the build in an isolated environment, where the checkout is not on sys.path.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from native import build, compiler


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled backend to a wheel, or puts it into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Returns the requirement that brings a compiler, if no compiler is installed."""
        return compiler.missing_requirements()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the backend.

        Args:
            version: `editable` for an editable install, else `standard`.
            build_data: Description of the wheel, to which this method adds the libraries and the platform tag.
        """
        root = Path(self.root)
        chosen = compiler.find_compiler()
        editable = version == "editable"
        # A warning from a compiler that was never tested must not prevent users from installing a release.
        libraries = build.build_backend(
            sources=root / "native", folder=root / "build" / "native", compiler=chosen, strict=editable
        )
        for library in libraries:
            place = build.PLACE / library.name
            if editable:
                build.install(library, root / place)
            else:
                build_data["force_include"][str(library)] = place.as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{chosen.platform_tag}"
