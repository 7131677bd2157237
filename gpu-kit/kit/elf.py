"""Names that a shared library exports, and where the loader finds it."""

import ctypes
import os
import struct

SYMBOL = struct.Struct("<IBBHQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
DYNSYM = 11
BOUND = (1, 2, 10)  # global, weak, GNU_UNIQUE


def exports(path):
    """Names of the dynamic symbols that a 64-bit library defines, without their versions."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:5] != b"\x7fELF\x02":
        raise ValueError(f"{path} is no 64-bit ELF file")
    offset, = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [SECTION.unpack_from(data, offset + size * at) for at in range(count)]
    names = set()
    for section in sections:
        if section[1] != DYNSYM:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], SYMBOL.size):
            name, info, _, place, value, _ = SYMBOL.unpack_from(data, at)
            if place != 0 and value != 0 and info >> 4 in BOUND:
                end = data.index(b"\0", strings + name)
                names.add(data[strings + name : end].decode())
    return names


class _Place(ctypes.Structure):
    """`Dl_info` of dladdr."""

    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]


def loaded(soname, symbol):
    """The file that the loader takes for a name, by a symbol that it has; None if there is none. Loads it."""
    try:
        function = getattr(ctypes.CDLL(soname), symbol)
    except (OSError, AttributeError):
        return None
    place = _Place()
    address = ctypes.cast(function, ctypes.c_void_p)
    if not ctypes.CDLL(None).dladdr(address, ctypes.byref(place)) or not place.file:
        return None
    return os.path.realpath(place.file.decode())
