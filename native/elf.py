"""Reader of the dynamic symbols of an ELF library of 64 bits, little endian: what it needs and what it offers."""

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
        exported: Names that others can use.
        needed: Names that others must define; weak ones, which may stay undefined, are left out.
        glibc: Newest version of glibc's symbols among them; None if there is none.
    """

    exported: frozenset[str]
    needed: frozenset[str]
    glibc: tuple[int, int] | None


def read_symbols(library: Path) -> Symbols:
    """Reads the dynamic symbols of a library.

    Raises:
        ValueError: The file is no such library.
    """
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{library} is no ELF library of 64 bits")
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
