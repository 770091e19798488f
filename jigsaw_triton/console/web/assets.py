"""Files of the console's pages, which the build puts into the package."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import MissingDependencyError

INDEX = "index.html"

_TYPES = {".js": "text/javascript", ".map": "application/json", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
"""Types of files that the table of the system may lack or name in another way."""

_COMPRESSED = ("text/", "application/json", "image/svg+xml")
"""Prefixes of the media types that compression makes smaller."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as the console sends it.

    Attributes:
        content: Content of the file.
        compressed: Content, compressed with gzip; None if that is not smaller.
        type: Media type.
        etag: Name of the content, for caches.
    """

    content: bytes
    compressed: bytes | None
    type: str
    etag: str


def load_assets(folder: Path) -> Mapping[str, Asset]:
    """Reads all files of a folder. Returns path below the folder -> file.

    Raises:
        MissingDependencyError: The folder lacks the page.
    """
    if not (folder / INDEX).is_file():
        raise MissingDependencyError(
            "the pages of the console have not been built",
            where=str(folder),
            hint="install a release of jigsaw-triton, which has them; or install it from its sources again where the "
            "npm registry and PyPI can be reached, which `make setup` does; the build says what it lacks",
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _asset(path) for path in paths}


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    small = gzip.compress(content, mtime=0) if kind.startswith(_COMPRESSED) else content
    text = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
    compressed = small if len(small) < len(content) else None
    return Asset(content, compressed, text, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
