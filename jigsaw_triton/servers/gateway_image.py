"""What the gateway needs inside an image that has a tritonserver alone: the compiled backend, mounted there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jigsaw_triton.servers.backend import BACKEND, find_library
from jigsaw_triton.servers.installation import Installation


def with_backend(installation: Installation) -> Installation:
    """The tritonserver of an image with the compiled backend, where that is built."""
    if find_library() is None:
        return installation
    return replace(installation, backends=frozenset({*installation.backends, BACKEND}))


def backend_mounts(installation: Installation) -> Mapping[Path, Path]:
    """Path of the compiled backend here -> path inside the image."""
    library = find_library()
    return {} if library is None else {library: installation.backend_dir / BACKEND / library.name}
