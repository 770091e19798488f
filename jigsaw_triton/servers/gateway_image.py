"""Adds the compiled backend, by a mount, to an image that contains only a tritonserver."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jigsaw_triton.servers.backend import BACKEND, find_library
from jigsaw_triton.servers.installation import Installation


def with_backend(installation: Installation) -> Installation:
    """Returns the tritonserver of an image with the compiled backend, if that is built."""
    if find_library() is None:
        return installation
    return replace(installation, backends=frozenset({*installation.backends, BACKEND}))


def backend_mounts(installation: Installation) -> Mapping[Path, Path]:
    """Returns the mount of the compiled backend, host path -> path in the container; empty if it is not built."""
    library = find_library()
    return {} if library is None else {library: installation.backend_dir / BACKEND / library.name}
