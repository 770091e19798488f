"""Build hook for hatchling: compiles the Triton backend and bundles the web console."""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# pip learns which versions are supported from the wheel, after it has built all of it.
if sys.version_info[:2] not in ((3, 11), (3, 12)):
    sys.exit(
        f"jigsaw-triton needs Python 3.11 or 3.12, but {sys.executable} is Python {sys.version_info[0]}."
        f"{sys.version_info[1]}. Create the virtual environment with one of them: python3.12 -m venv .venv"
    )

# pip runs the build in an isolated environment, where the checkout is not on sys.path.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from console import build as console_build
from console import node
from native import build, compiler


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled backend to a wheel, or puts it into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Returns the requirements that bring a compiler, if none is installed.

        Node.js is none of them: an installation would fail where it cannot be downloaded.
        """
        return compiler.missing_requirements()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the backend and the web console.

        Args:
            version: `editable` for an editable install, else `standard`.
            build_data: Description of the wheel, to which this method adds files and the platform tag.
        """
        root = Path(self.root)
        self._build_console(root, build_data, editable=version == "editable")
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

    def _build_console(self, root: Path, build_data: dict[str, Any], *, editable: bool) -> None:
        """Bundles the web console, or leaves it out if Node.js or npm's packages cannot be downloaded.

        A deployment needs no console, so an installation from sources must not fail for lack of them.
        """
        mode = os.environ.get(console_build.MODE_VARIABLE, "")
        if mode == "skip":
            return
        try:
            assets = console_build.build(sources=root / "console", folder=root / "build" / "console", develop=editable)
        except node.BuildError as error:
            if mode == "require":
                raise
            self.app.display_warning(f"{error}\nThis installation has no web console; all else works.")
            return
        if editable:
            console_build.install(assets, root / console_build.PLACE)
        else:
            for path in sorted(assets.iterdir()):
                build_data["force_include"][str(path)] = (console_build.PLACE / path.name).as_posix()
