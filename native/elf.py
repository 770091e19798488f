"""Reads the dynamic symbols of a 64-bit little-endian ELF library: those it exports and those it needs."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER_SECTIONS = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNSYM = 11
_WEAK = 2
_GLIBC = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)")


@dataclass(frozen=True, slots=True)
class Symbols:
    """Dynamic symbols of a library.

    Attributes:
        exported: Names that the library defines for others.
        needed: Names that other libraries must define; weak ones, which may stay undefined, are excluded.
        glibc: Newest version of the glibc symbols that it needs; None if it needs none.
    """

    exported: frozenset[str]
    needed: frozenset[str]
    glibc: tuple[int, int] | None


def read_symbols(library: Path) -> Symbols:
    """Reads the dynamic symbols of a library.

    Raises:
        ValueError: The file is not a 64-bit little-endian ELF library, or has no dynamic symbols.
    """
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{library} is not a 64-bit ELF library")
    offset, size, count, _ = _HEADER_SECTIONS.unpack_from(data)
    sections = [_SECTION.unpack_from(data, offset + index * size) for index in range(count)]
    table = next((section for section in sections if section[1] == _DYNSYM), None)
    if table is None:
        raise ValueError(f"{library} has no dynamic symbols")
    strings = sections[table[6]]
    names = data[strings[4] : strings[4] + strings[5]]
    exported, needed = set(), set()
    for start in range(table[4] + _SYMBOL.size, table[4] + table[5], _SYMBOL.size):
        name, info, _, section, _, _ = _SYMBOL.unpack_from(data, start)
        text = names[name : names.index(b"\0", name)].decode()
        if section:
            exported.add(text)
        elif info >> 4 != _WEAK:
            needed.add(text)
    versions = [(int(major), int(minor)) for major, minor in _GLIBC.findall(names)]
    return Symbols(frozenset(exported), frozenset(needed), max(versions, default=None))
