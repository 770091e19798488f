"""Files of models, by the SHA-256 of their content: those that an agent has got, and a controller's copies.

What arrives at an agent is verified, and an interrupted transfer goes on where it stopped.
"""

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.file_digest import sha256_of

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART = ".part"

KEPT_S = 600.0
"""Seconds that a file stays after its last use: the next change of a deployment often needs it again."""


class Contents:
    """A folder of files, each named by the SHA-256 of its content.

    Args:
        folder: The folder, created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._receiving: dict[str, asyncio.Lock] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Returns the path of a file, which need not exist.

        Raises:
            InputError: The digest is no SHA-256.
        """
        if not _DIGEST.fullmatch(digest):
            raise InputError("a SHA-256 has 64 hexadecimal digits", where=repr(digest))
        return self._folder / digest

    def missing(self, digests: Iterable[str]) -> dict[str, int]:
        """Returns the digests whose files are missing, and the number of bytes of each that have arrived.

        The others are kept for some minutes from now on.
        """
        return {digest: self._arrived(digest) for digest in digests if not self._touched(digest)}

    def _touched(self, digest: str) -> bool:
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    async def receive(self, digest: str, offset: int, chunks: AsyncIterator[bytes]) -> None:
        """Writes a file, or the rest of it. What has arrived stays if the transfer is interrupted, but not if it fails.

        Args:
            digest: SHA-256 of the whole content.
            offset: Position of the first of these bytes in the file.
            chunks: The bytes.

        Raises:
            InputError: The transfer broke off, its bytes do not follow those that have arrived, or the content has
                another digest.
            ServerError: The file cannot be written.
        """
        path = self.path(digest)
        async with self._receiving.setdefault(digest, asyncio.Lock()):
            if path.is_file():
                return
            part = path.with_suffix(_PART)
            # A lower offset is valid: the rest of a broken transfer may have arrived since the sender asked.
            if offset > self._arrived(digest):
                raise InputError(f"the transfer goes on at byte {self._arrived(digest)}, not at {offset}", where=digest)
            try:
                part.touch()
                with part.open("r+b") as file:
                    file.seek(offset)
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
                    file.flush()
                    # After a power failure, a file of this name must not lack its content.
                    await asyncio.to_thread(os.fsync, file.fileno())
                found = await asyncio.to_thread(sha256_of, part)
                if found != digest:
                    part.unlink()
                    raise InputError(f"the content has arrived damaged: its SHA-256 is {found}", where=digest)
                part.rename(path)
            except ConnectionError as error:
                raise InputError("the transfer broke off", where=digest, hint="send the rest") from error
            except OSError as error:
                # A partial file would keep a disk full. The rest is read, because the caller cannot get an answer
                # over a connection that closes under its transfer.
                part.unlink(missing_ok=True)
                async for _ in chunks:
                    pass
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                reason = "the disk is full" if full else error.strerror
                hint = "free some space on this node, or give its agent another folder with --state"
                raise ServerError(
                    f"the files of models cannot be written: {reason}", where=str(self._folder), hint=hint
                ) from error

    def unused(self, used: Collection[str]) -> Iterator[Path]:
        """Yields the files that have not been used for some minutes. Blocks.

        Args:
            used: Digests of the files that are in use.
        """
        now_s = time.time()
        for path in self._folder.iterdir():
            # Another operation may remove the file at the same time, or a transfer rename it.
            with contextlib.suppress(FileNotFoundError):
                if path.name not in used and now_s - path.stat().st_mtime > KEPT_S:
                    yield path

    def collect(self, used: Collection[str]) -> int:
        """Removes files that have not been used for some minutes. Blocks.

        Args:
            used: Digests of the files that are in use, whose time of use is now.

        Returns:
            Number of files that were removed.
        """
        removed = 0
        for path in self.unused(used):
            path.unlink(missing_ok=True)
            removed += 1
        for digest in used:
            self._touched(digest)
        return removed

    def _arrived(self, digest: str) -> int:
        part = self.path(digest).with_suffix(_PART)
        return part.stat().st_size if part.is_file() else 0
