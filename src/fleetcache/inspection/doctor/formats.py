"""Which format the first bytes of a payload show.  Nothing is unpickled, and no more is decompressed than its beginning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from fleetcache.codec.compressors import KNOWN, LibraryCompressor
from fleetcache.codec.metadata import ENVELOPE, LONG, SHORT
from fleetcache.errors import SettingsError
from fleetcache.settings import Options

SAMPLE = 2048
"""How many bytes of a payload are looked at."""
SHOWN = 512
"""How many bytes are decompressed at most."""

INTEGER, PICKLE, JSON, TOKEN, OTHER = "integer", "pickle", "json", "token", "other"
TOKENS = re.compile(rb"[0-9a-f]{32}")
"""The tokens of locks, those of redis-py too."""


class Format(NamedTuple):
    """What the first bytes of a payload show."""

    body: str
    """The serializer's format: ``integer``, ``pickle``, ``json``, ``token`` of a lock, ``other`` (such as MessagePack), or ``unknown`` if compressed."""
    compressed: str = ""
    """The format in which it is compressed."""
    metadata: str = ""
    """``envelope`` or ``head``: it has metadata, see `fleetcache.codec.metadata`."""

    def __str__(self) -> str:
        words = [self.body, f"with metadata ({self.metadata})" * bool(self.metadata)]
        return " ".join(filter(None, [*words, f"compressed by {self.compressed}" * bool(self.compressed)]))


def format_of(start: bytes, length: int | None = None) -> Format:
    """Return the format of the payload that begins with *start* and has *length* bytes."""
    length = len(start) if length is None else length
    for name, kind in COMPRESSORS.items():
        if start.startswith(tuple(kind.magic)):
            inner = _opened(name, start)
            if inner is None:
                continue  # it only begins like this format, as a pickle or text may
            return format_of(inner)._replace(compressed=name) if inner else Format("unknown", name)
    if start.startswith(ENVELOPE):
        size = int.from_bytes(start[2:6], "little")
        return Format(_body(start[6 + size :], length - 6 - size), metadata="envelope")
    if start[:1] in {SHORT, LONG} and length > 40:
        return Format(PICKLE, metadata="head")
    return Format(_body(start, length))


def _body(start: bytes, length: int) -> str:
    digits = start.removeprefix(b"-")
    if length == len(start) and digits.isdigit():
        return INTEGER
    if length == len(start) and TOKENS.fullmatch(start):
        return TOKEN
    if length > 2 and start[:1] == b"\x80" and start[1:2] <= b"\x05" and start[1:2] >= b"\x02":
        return PICKLE
    if start[:1] in TEXTUAL and start.isascii():
        return JSON
    return OTHER


TEXTUAL = frozenset(bytes((each,)) for each in b'{["tfn-0123456789')

COMPRESSORS: Mapping[str, type[LibraryCompressor]] = {
    kind.__name__.removesuffix("Compressor").lower(): kind for kind in KNOWN
}
"""The compressors whose output every cache reads, by name."""


def library_of(name: str) -> str:
    """Return the library that the compressor *name* needs and that is not installed; "" if none is missing."""
    try:
        COMPRESSORS[name](Options())
    except SettingsError:
        return COMPRESSORS[name].module
    return ""


def _opened(name: str, start: bytes) -> bytes | None:
    """Return the beginning of what *start* holds compressed; b"" if the library is missing, None if it is not compressed."""
    try:
        unpacker = COMPRESSORS[name](Options()).unpacker()
    except SettingsError:
        return b""
    try:
        return bytes(unpacker.decompress(start, SHOWN))
    except Exception:  # noqa: BLE001 - whatever the library raises for bytes that it did not write
        return None
