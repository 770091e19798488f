"""System shared memory through which large tensors go to workers on this host and come back, instead of the socket.

A region belongs to one call at a time, and holds its inputs and then its outputs. Workers are told of it once a
connection.
"""

import math
import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, to_numpy
from jigsaw_triton.runtime.spec import TensorSpec

FOLDER = Path("/dev/shm")
"""Where POSIX shared memory lies on Linux."""

SMALLEST_BYTES = 128 * 1024
"""Of a tensor that goes this way (benchmarks/dataplane); below, the socket is as fast."""

_ALIGNMENT = 64
_LEAST_REGION_BYTES = 2**20


class Span(NamedTuple):
    """Where a tensor is in a region."""

    offset: int
    size: int


class Region:
    """A piece of shared memory.

    Args:
        name: Under which workers map it.
        size: Bytes.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Memory that is not there is to be missed here: where it is written to, that would end the process.
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        except OSError:
            (FOLDER / name).unlink()
            raise
        finally:
            os.close(descriptor)
        self._bytes = np.frombuffer(self._memory, np.uint8)

    def view(self, span: Span, dtype: str, shape: tuple[int, ...]) -> Array:
        """The tensor there, without a copy."""
        return self._bytes[span.offset : span.offset + span.size].view(to_numpy(dtype)).reshape(shape)

    def unlink(self) -> None:
        """Takes its name away; the memory goes when nobody maps it any more."""
        (FOLDER / self.name).unlink(missing_ok=True)


class Placement(NamedTuple):
    """What of a call goes through a region: tensor name -> where it is."""

    region: Region
    inputs: Mapping[str, Span]
    outputs: Mapping[str, Span]


class Regions:
    """The regions of one dispatcher instance.

    Args:
        prefix: How their names begin, so that whoever clears up after this process finds them.
        dropped: Told of a region that will not be used again, before its name goes.
    """

    def __init__(self, prefix: str, dropped: Callable[[Region], None]) -> None:
        # Never a name that a worker may still know from a process that is gone: it would go on with its old memory.
        own = secrets.token_hex(8)
        self._names: Iterator[str] = (f"{prefix}{own}-{number}" for number in count())
        self._dropped = dropped
        self._free: list[Region] = []
        self._used: list[Region] = []

    def place(
        self, inputs: Mapping[str, tuple[str, int]], outputs: tuple[TensorSpec, ...], items: int
    ) -> Placement | None:
        """Finds room for a call's large tensors; None where it has none, or there is no memory.

        Args:
            inputs: Name -> data type and bytes.
            outputs: That are wanted; those of fixed size can go this way.
            items: Of the call.
        """
        sizes_in = {name: size for name, (dtype, size) in inputs.items() if dtype != "BYTES"}
        sizes_out = {spec.name: _bytes(spec, items) for spec in outputs}
        spans_in, end = _lay_out(sizes_in, 0)
        spans_out, end = _lay_out(sizes_out, end)
        region = self._take(end) if end else None
        return Placement(region, spans_in, spans_out) if region is not None else None

    def recycle(self) -> None:
        """Nothing that was placed is looked at any more."""
        self._free += self._used
        self._used.clear()

    def discard(self, region: Region) -> None:
        """A call that went wrong had it, and its worker may still write there: it is not used again."""
        self._used.remove(region)
        self._drop(region)

    def close(self) -> None:
        """Drops all regions."""
        self.recycle()
        while self._free:
            self._drop(self._free.pop())

    def _take(self, size: int) -> Region | None:
        for index, region in enumerate(self._free):
            if region.size >= size:
                self._used.append(self._free.pop(index))
                return self._used[-1]
        if self._free:
            # Rather a larger one instead of it than one more.
            self._drop(self._free.pop())
        try:
            region = Region(next(self._names), max(_LEAST_REGION_BYTES, 1 << (size - 1).bit_length()))
        except OSError:
            return None
        self._used.append(region)
        return region

    def _drop(self, region: Region) -> None:
        self._dropped(region)
        region.unlink()


def _lay_out(sizes: Mapping[str, int], at: int) -> tuple[dict[str, Span], int]:
    """Spans for the large ones, from an offset on, and the offset after them."""
    spans = {}
    for name, size in sizes.items():
        if size >= SMALLEST_BYTES:
            spans[name] = Span(at, size)
            at += size + -size % _ALIGNMENT
    return spans, at


def _bytes(spec: TensorSpec, items: int) -> int:
    """Of a tensor; 0 where that is not known before."""
    if spec.dtype == "BYTES" or -1 in spec.shape:
        return 0
    return items * math.prod(spec.shape) * to_numpy(spec.dtype).itemsize
